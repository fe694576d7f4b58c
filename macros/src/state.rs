//! `#[derive(State)]`: the encoding of a state and the descriptor of its fields.
//!
//! The descriptor names the fields as they stand in the encoding, so `#[serde(rename = "..")]` and
//! `#[serde(skip)]` count.
//!
//! Deliberately absent: enums, which have no fields to describe (put one into a field), and generic
//! structs, because a stored state has to be readable without knowing the type parameters.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Field, LitInt, LitStr, Meta, Token, ext::IdentExt, punctuated::Punctuated};

use crate::{
    arguments::{each_attribute_argument, unknown},
    problems::Problems,
    text::text_of,
};

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
    let DeriveInput { ident, generics, data, .. } = item;
    let version = version.map_or(1, |version| check_version(&version, problems));
    if !generics.params.is_empty() {
        let text = "a state cannot be generic, it is read without its type: give the struct concrete fields";
        problems.add(&generics, text);
        return None;
    }
    match data {
        Data::Struct(data) => {
            let fields = data.fields.iter().enumerate().filter_map(|(place, field)| described(place, field)).collect();
            Some(State { ident, version, fields })
        }
        Data::Enum(data) => {
            let text = format_args!("a state is a struct: put the enum into a field, `struct State {{ is: {ident} }}`")
                .to_string();
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

fn described(place: usize, field: &Field) -> Option<Described> {
    let options: Vec<Meta> =
        field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")).flat_map(options).collect();
    if options.iter().any(|option| option.path().is_ident("skip") || option.path().is_ident("skip_serializing")) {
        return None;
    }
    let written = field.ident.as_ref().map_or_else(|| place.to_string(), |ident| ident.unraw().to_string());
    let name = options.iter().find_map(renamed).unwrap_or(written);
    Some(Described { name, ty: text_of(&field.ty) })
}

/// The options of a `#[serde(..)]`; what serde itself will refuse gives none.
fn options(attribute: &Attribute) -> Vec<Meta> {
    let parsed = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    parsed.map(|options| options.into_iter().collect()).unwrap_or_default()
}

fn renamed(option: &Meta) -> Option<String> {
    let Meta::NameValue(pair) = option else { return None };
    let name: LitStr =
        pair.path.is_ident("rename").then(|| syn::parse2(quote::ToTokens::to_token_stream(&pair.value)).ok())??;
    Some(name.value())
}

fn expand(state: &State) -> TokenStream {
    let State { ident, version, fields } = state;
    let names = fields.iter().map(|field| &field.name);
    let types = fields.iter().map(|field| &field.ty);
    let version = proc_macro2::Literal::u32_unsuffixed(*version);
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
