//! `#[derive(State)]`: the encoding of a state and the descriptor of its fields.
//!
//! The descriptor names the fields as they stand in the encoding, so `#[serde(rename = "..")]` and
//! `#[serde(skip)]` count, and options that would make it wrong are refused.
//!
//! Deliberately absent: enums, which have no fields to describe (put one into a field), and generic
//! structs, because a stored state has to be readable without knowing the type parameters.

use proc_macro2::{Ident, Literal, TokenStream};
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Lit, LitInt, Meta, Token, ext::IdentExt,
    punctuated::Punctuated,
};

use crate::{
    arguments::{each_attribute_argument, unknown},
    problems::Problems,
    text::text_of,
};

/// Options of serde after which the encoding has other names, or no fields at all.
const HIDING: [&str; 6] = ["rename_all", "flatten", "transparent", "from", "try_from", "into"];

/// What the derive needs to know.
struct State {
    ident: Ident,
    version: u32,
    fields: Vec<Described>,
}

/// A field as the descriptor names it.
struct Described {
    name: String,
    ty: String,
}

/// Expands the derive.
pub(crate) fn state(item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let item: Option<DeriveInput> = problems.ok(syn::parse2(item));
    let state = item.and_then(|item| parse(item, &mut problems));
    let errors = problems.into_compile_errors();
    let printed = state.map(|state| expand(&state));
    quote!(#errors #printed)
}

fn parse(item: DeriveInput, problems: &mut Problems) -> Option<State> {
    let mut version = None;
    each_attribute_argument(&item.attrs, "state", problems, |argument, input, _| {
        if argument != "version" {
            return Err(unknown("#[state]", argument, "`version`"));
        }
        input.parse::<Token![=]>()?;
        version = Some(input.parse()?);
        Ok(())
    });
    check(item, version, problems)
}

fn check(item: DeriveInput, version: Option<LitInt>, problems: &mut Problems) -> Option<State> {
    let DeriveInput { attrs, ident, generics, data, .. } = item;
    let version = version.map_or(1, |version| check_version(&version, problems));
    if !generics.params.is_empty() {
        let text = "a state cannot be generic, it is read without its type: give the struct concrete fields";
        problems.add(&generics, text);
        return None;
    }
    match data {
        Data::Struct(data) => {
            serde_options(&attrs, problems);
            let fields = described(&data.fields, problems);
            Some(State { ident, version, fields })
        }
        Data::Enum(data) => {
            let text = format!("a state is a struct: put the enum into a field, `struct State {{ is: {ident} }}`");
            problems.add(data.enum_token, text);
            None
        }
        Data::Union(data) => {
            problems.add(data.union_token, "a state is a struct, not a union: use a struct with named fields");
            None
        }
    }
}

fn check_version(version: &LitInt, problems: &mut Problems) -> u32 {
    match version.base10_parse() {
        Ok(version) if version > 0 => version,
        _ => {
            problems.add(version, format_args!("`{version}` is no version: count from 1, up to {}", u32::MAX));
            1
        }
    }
}

fn described(fields: &Fields, problems: &mut Problems) -> Vec<Described> {
    let mut kept = Vec::new();
    for (place, field) in fields.iter().enumerate() {
        let options = serde_options(&field.attrs, problems);
        if !options.iter().any(is_skip) {
            kept.push(Described { name: name_of(place, field, &options), ty: text_of(&field.ty) });
        }
    }
    kept
}

/// Returns what `#[serde(..)]` says, and reports what would make the descriptor wrong.
fn serde_options(attributes: &[Attribute], problems: &mut Problems) -> Vec<Meta> {
    let attributes = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    let options: Vec<Meta> = attributes.flat_map(options).collect();
    for option in &options {
        let name = text_of(option.path());
        if HIDING.contains(&name.as_str()) || (name == "rename" && renamed(option).is_none()) {
            let text = format_args!(
                "`#[serde({name})]` is not supported on a state, its fields are described by their names: give \
                 fields a `#[serde(rename = \"..\")]` each"
            );
            problems.add(option, text);
        }
    }
    options
}

/// The options of one attribute; what serde itself will refuse gives none.
fn options(attribute: &Attribute) -> Vec<Meta> {
    let parsed = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    parsed.map(|options| options.into_iter().collect()).unwrap_or_default()
}

fn is_skip(option: &Meta) -> bool {
    ["skip", "skip_serializing"].iter().any(|skip| option.path().is_ident(skip))
}

fn name_of(place: usize, field: &Field, options: &[Meta]) -> String {
    let written = || field.ident.as_ref().map_or_else(|| place.to_string(), |ident| ident.unraw().to_string());
    options.iter().find_map(renamed).unwrap_or_else(written)
}

/// Returns the name that `rename = ".."` gives.
fn renamed(option: &Meta) -> Option<String> {
    let Meta::NameValue(pair) = option else { return None };
    let Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) = &pair.value else { return None };
    pair.path.is_ident("rename").then(|| name.value())
}

fn expand(state: &State) -> TokenStream {
    let State { ident, version, fields } = state;
    let names = fields.iter().map(|field| &field.name);
    let types = fields.iter().map(|field| &field.ty);
    let version = Literal::u32_unsuffixed(*version);
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::State for #ident {
            const FIELDS: &'static [::statefn::__private::Field] = &[
                #(::statefn::__private::Field { name: #names, ty: #types }),*
            ];
            const VERSION: u32 = #version;

            fn encode_state(&self, out: &mut ::std::vec::Vec<u8>) {
                ::statefn::__private::encode_state(self, Self::VERSION, out);
            }
            fn decode_state(bytes: &[u8]) -> ::std::result::Result<Self, ::statefn::__private::DecodeError> {
                ::statefn::__private::decode_state(bytes, Self::VERSION)
            }
        }
    }
}
