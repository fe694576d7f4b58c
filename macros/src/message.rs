//! `#[derive(Message)]`: a type with a stable name and an encoding.
//!
//! Deliberately absent: generic messages. A name stands for one layout of bytes.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, LitStr};

use crate::{
    arguments::{each_attribute_argument, text, unknown},
    names::check_word,
    problems::Problems,
    schema,
};

/// What the derive needs to know.
struct Message {
    item: DeriveInput,
    ident: Ident,
    name: LitStr,
    is_prost: bool,
}

/// Expands the derive.
pub(crate) fn message(item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let item: Option<DeriveInput> = problems.ok(syn::parse2(item));
    let message = item.and_then(|item| parse(item, &mut problems));
    let errors = problems.into_compile_errors();
    let printed = message.map(|message| expand(&message));
    quote!(#errors #printed)
}

fn parse(item: DeriveInput, problems: &mut Problems) -> Option<Message> {
    let mut name = None;
    let mut is_prost = false;
    each_attribute_argument(&item.attrs, "message", problems, |argument, input, _| {
        match argument.to_string().as_str() {
            "name" => name = Some(text(argument, input, "transfer")?),
            "prost" => is_prost = true,
            _ => return Err(unknown("#[message]", argument, "`name`, `prost`")),
        }
        Ok(())
    });
    check(item, name, is_prost, problems)
}

fn check(item: DeriveInput, name: Option<LitStr>, is_prost: bool, problems: &mut Problems) -> Option<Message> {
    let DeriveInput { ident, generics, .. } = &item;
    if let Some(name) = &name {
        check_word(name, "message name", "transfer", problems);
    } else if problems.count() == 0 {
        problems.add(ident, "a message needs a stable name: add `#[message(name = \"..\")]`");
    }
    if !generics.params.is_empty() {
        let text = "a message cannot be generic, its name stands for one type: derive `Message` on a type without \
                    parameters";
        problems.add(generics, text);
        return None;
    }
    let name = name.unwrap_or_else(|| LitStr::new("", ident.span()));
    Some(Message { ident: ident.clone(), item, name, is_prost })
}

fn expand(message: &Message) -> TokenStream {
    let Message { item, ident, name, is_prost } = message;
    let (wire, encoding) = if *is_prost { (wire_by_prost(ident), "Protobuf") } else { (wire_by_json(ident), "Json") };
    // What is written as protobuf has no JSON.
    let schema = (!is_prost).then(|| schema::expand(item));
    let encoding = Ident::new(encoding, Span::call_site());
    quote! {
        #wire
        #schema

        #[automatically_derived]
        impl ::statefn::__private::Message for #ident {
            const NAME: &'static str = #name;
            const ENCODING: ::statefn::__private::Encoding = ::statefn::__private::Encoding::#encoding;
        }
    }
}

fn wire_by_json(ident: &Ident) -> TokenStream {
    let schema = schema::method();
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Wire for #ident {
            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                ::statefn::__private::encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> ::std::result::Result<Self, ::statefn::__private::DecodeError> {
                ::statefn::__private::decode_json(bytes)
            }
            fn decode_row(
                row: ::statefn::__private::Row<'_>,
            ) -> ::std::result::Result<Self, ::statefn::__private::DecodeError> {
                ::statefn::__private::decode_row(row)
            }
            #schema
        }
    }
}

fn wire_by_prost(ident: &Ident) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Wire for #ident {
            const CONTENT: ::statefn::__private::Encoding = ::statefn::__private::Encoding::Protobuf;
            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                ::statefn::__private::encode_prost(self, out);
            }
            fn decode(bytes: &[u8]) -> ::std::result::Result<Self, ::statefn::__private::DecodeError> {
                ::statefn::__private::decode_prost(bytes)
            }
            fn decode_into(&mut self, bytes: &[u8]) -> ::std::result::Result<(), ::statefn::__private::DecodeError> {
                ::statefn::__private::decode_prost_into(self, bytes)
            }
            fn reset(&mut self) {
                ::statefn::__private::reset_prost(self);
            }
        }
    }
}
