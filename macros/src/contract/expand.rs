//! Prints what `check` found sound.

use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};

use super::{check::Contract, parse::Message};
use crate::text::place_of;

/// Prints the type of a contract and its impls.
pub(super) fn expand(contract: &Contract) -> TokenStream {
    let definition = definition(contract);
    let target = target(contract);
    let accepts = contract.messages.iter().enumerate().map(|(index, message)| accepts(contract, index, message));
    let covers = covers(contract);
    let ident = &contract.ident;
    let assertion = contract.is_complete.then(|| {
        quote! {
            const _: () = ::statefn::__private::assert_distinct(<#ident as ::statefn::__private::Target>::MESSAGES);
        }
    });
    quote!(#definition #target #(#accepts)* #covers #assertion)
}

fn definition(contract: &Contract) -> TokenStream {
    let Contract { attributes, visibility, ident, name, key, .. } = contract;
    let summary = format!("The contract of `{}`.", name.value());
    let is_documented = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
    let summary = (!is_documented).then(|| quote!(#[doc = #summary]));
    quote! {
        #summary
        #(#attributes)*
        #[derive(::std::fmt::Debug)]
        #visibility enum #ident {}

        #[automatically_derived]
        impl #ident {
            /// The address of the instance with this key.
            #[must_use]
            #[allow(dead_code, reason = "a function need not be sent to")]
            pub fn at(key: impl ::statefn::__private::IntoKey<#key>) -> ::statefn::__private::Address<Self> {
                ::statefn::__private::Address::new(key)
            }
        }
    }
}

fn target(contract: &Contract) -> TokenStream {
    let Contract { ident, name, key, .. } = contract;
    let messages = contract.messages.iter().map(|message| &message.ty);
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Target for #ident {
            const NAME: &'static str = #name;
            const MESSAGES: &'static [&'static str] = &[
                #(<#messages as ::statefn::__private::Message>::NAME),*
            ];
            type Key = #key;
        }
    }
}

fn accepts(contract: &Contract, index: usize, message: &Message) -> TokenStream {
    let ident = &contract.ident;
    let Message { ty, output } = message;
    let index = Literal::usize_unsuffixed(index);
    // A type that is no message is reported where it stands, what cannot be returned at the return type.
    quote_spanned! {place_of(ty)=>
        #[automatically_derived]
        impl ::statefn::__private::Accepts<#ty> for #ident {
            type Return = #output;
            const INDEX: u16 = #index;
        }
    }
}

fn covers(contract: &Contract) -> TokenStream {
    let Contract { ident, key, .. } = contract;
    // What is not covered is reported with the message that it is about.
    let bounds = contract.messages.iter().map(|Message { ty, output }| {
        quote_spanned! {place_of(ty)=>
            ::statefn::__private::Handles<#ty> + ::statefn::__private::Accepts<
                #ty,
                Return: ::statefn::__private::HandlerReturn<
                    Answer = <#output as ::statefn::__private::HandlerReturn>::Answer,
                    Rejection = <#output as ::statefn::__private::HandlerReturn>::Rejection,
                >,
            >
        }
    });
    quote! {
        #[automatically_derived]
        impl<F> ::statefn::__private::Covers<F> for #ident
        where
            F: ::statefn::__private::Function<Key = #key> #(+ #bounds)*,
        {
        }
    }
}
