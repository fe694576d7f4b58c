//! `#[derive(Reject)]`: a handler's answer "no", with a code for programs and a status for HTTP.
//!
//! An enum can say `#[reject(..)]` once for all variants, on each variant, or both: what stands on
//! the variant counts.
//!
//! Deliberately absent: a text for people. The code and the fields are what programs act on.

use std::ops::RangeInclusive;

use proc_macro2::{Ident, Literal, TokenStream};
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DataEnum, DeriveInput, LitInt, LitStr, Token};

use crate::{
    arguments::{each_attribute_argument, text, unknown},
    names::check_word,
    problems::Problems,
    schema,
};

/// What a rejection may be over HTTP: the caller's doing.
const STATUS: RangeInclusive<u16> = 400..=499;
/// Conflict: the request is right, but the state says no.
const STATUS_DEFAULT: u16 = 409;

/// What the derive needs to know.
struct Reject {
    ident: Ident,
    schema: TokenStream,
    answers: Answers,
}

enum Answers {
    /// The same for every value.
    One(Answer),
    /// One for each variant.
    PerVariant(Vec<(Ident, Answer)>),
}

struct Answer {
    code: String,
    status: u16,
}

/// One `#[reject(..)]` as it is written.
#[derive(Default)]
struct Written {
    code: Option<LitStr>,
    status: Option<u16>,
    is_faulty: bool,
}

/// Expands the derive.
pub(crate) fn reject(item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let item: Option<DeriveInput> = problems.ok(syn::parse2(item));
    let reject = item.and_then(|item| check(item, &mut problems));
    let errors = problems.into_compile_errors();
    let printed = reject.map(|reject| expand(&reject));
    quote!(#errors #printed)
}

fn parse(attributes: &[Attribute], problems: &mut Problems) -> Written {
    let before = problems.count();
    let mut written = Written::default();
    each_attribute_argument(attributes, "reject", problems, |argument, input, problems| {
        match argument.to_string().as_str() {
            "code" => {
                let code = text(argument, input, "overdrawn")?;
                check_word(&code, "code", "overdrawn", problems);
                written.code = Some(code);
            }
            "status" => {
                input.parse::<Token![=]>()?;
                written.status = check_status(&input.parse()?, problems);
            }
            _ => return Err(unknown("#[reject]", argument, "`code`, `status`")),
        }
        Ok(())
    });
    written.is_faulty = problems.count() > before;
    written
}

fn check(item: DeriveInput, problems: &mut Problems) -> Option<Reject> {
    let schema = schema::expand(&item);
    let DeriveInput { attrs, ident, generics, data, .. } = item;
    if !generics.params.is_empty() {
        let text = "a rejection cannot be generic, its code stands for one type: derive `Reject` on a type without \
                    parameters";
        problems.add(&generics, text);
        return None;
    }
    let outer = parse(&attrs, problems);
    let answers = match data {
        Data::Enum(data) if !data.variants.is_empty() => Answers::PerVariant(check_variants(&data, &outer, problems)),
        _ => Answers::One(check_answer(&ident, Written::default(), &outer, problems)),
    };
    Some(Reject { ident, schema, answers })
}

fn check_variants(data: &DataEnum, outer: &Written, problems: &mut Problems) -> Vec<(Ident, Answer)> {
    let mut answers = Vec::new();
    for variant in &data.variants {
        let written = parse(&variant.attrs, problems);
        answers.push((variant.ident.clone(), check_answer(&variant.ident, written, outer, problems)));
    }
    answers
}

/// Reports a missing code, unless something else in the same attribute is wrong already.
fn check_answer(place: &Ident, written: Written, outer: &Written, problems: &mut Problems) -> Answer {
    let code = written.code.as_ref().or(outer.code.as_ref()).map(LitStr::value);
    if code.is_none() && !written.is_faulty && !outer.is_faulty {
        problems.add(place, format_args!("`{place}` needs a code for programs: add `#[reject(code = \"..\")]`"));
    }
    Answer { code: code.unwrap_or_default(), status: written.status.or(outer.status).unwrap_or(STATUS_DEFAULT) }
}

fn check_status(written: &LitInt, problems: &mut Problems) -> Option<u16> {
    let status = written.base10_parse().ok().filter(|status| STATUS.contains(status));
    if status.is_none() {
        let (first, last) = STATUS.into_inner();
        problems.add(
            written,
            format_args!(
                "`{written}` is no status of a rejection: use {first} to {last}, such as {STATUS_DEFAULT}; a handler \
                 that is broken returns `Fault`"
            ),
        );
    }
    status
}

fn expand(reject: &Reject) -> TokenStream {
    let Reject { ident, schema, answers } = reject;
    let method_of_schema = schema::method();
    let code = method(answers, |answer| answer.code.to_token_stream());
    let status = method(answers, |answer| Literal::u16_unsuffixed(answer.status).to_token_stream());
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Wire for #ident {
            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                ::statefn::__private::encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> ::std::result::Result<Self, ::statefn::__private::DecodeError> {
                ::statefn::__private::decode_json(bytes)
            }
            #method_of_schema
        }
        #schema

        #[automatically_derived]
        impl ::statefn::__private::Reject for #ident {
            fn code(&self) -> &'static str {
                #code
            }
            fn status(&self) -> u16 {
                #status
            }
        }
    }
}

/// The body of a method: one value, or one for each variant.
fn method(answers: &Answers, value: impl Fn(&Answer) -> TokenStream) -> TokenStream {
    match answers {
        Answers::One(answer) => value(answer),
        Answers::PerVariant(answers) => {
            let variants = answers.iter().map(|(variant, _)| variant);
            let values = answers.iter().map(|(_, answer)| value(answer));
            quote! {
                match self {
                    #(Self::#variants { .. } => #values),*
                }
            }
        }
    }
}
