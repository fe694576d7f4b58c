//! Prints what `check` found sound.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, Type};

use super::check::{Function, Handler, Name, Passing};
use crate::text::place_of;

/// Prints the impls of a function.
pub(super) fn expand(function: &Function) -> TokenStream {
    let address = function.has_address.then(|| address(function));
    let parts = [target(function), function_impl(function)];
    let messages = function.messages.iter().enumerate().map(|(index, handler)| handles(&function.ty, index, handler));
    let timers = function.timers.iter().enumerate().map(|(index, handler)| handles_timer(&function.ty, index, handler));
    let replies =
        function.replies.iter().enumerate().map(|(index, handler)| handles_reply(&function.ty, index, handler));
    let sends = function.sends.iter().enumerate().map(|(slot, target)| sends_to(&function.ty, slot, target));
    let assertions = function.is_complete.then(|| assertions(function));
    quote! {
        #address
        #(#parts)*
        #(#messages)*
        #(#timers)*
        #(#replies)*
        #(#sends)*
        #assertions
    }
}

fn address(function: &Function) -> TokenStream {
    let ty = &function.ty;
    let key = key(&function.name);
    quote! {
        #[automatically_derived]
        impl #ty {
            /// The address of the instance with this key.
            #[must_use]
            #[allow(dead_code, reason = "a function need not be sent to")]
            pub fn at(key: impl ::statefn::__private::IntoKey<#key>) -> ::statefn::__private::Address<Self> {
                ::statefn::__private::Address::new(key)
            }
        }
    }
}

fn key(name: &Name) -> TokenStream {
    match name {
        Name::Own { key, .. } => quote!(#key),
        Name::Contract(contract) => quote!(<#contract as ::statefn::__private::Target>::Key),
    }
}

fn target(function: &Function) -> TokenStream {
    let ty = &function.ty;
    let key = key(&function.name);
    let name = match &function.name {
        Name::Own { name, .. } => quote!(#name),
        Name::Contract(contract) => quote!(<#contract as ::statefn::__private::Target>::NAME),
    };
    let messages = function.messages.iter().map(|handler| &handler.message);
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Target for #ty {
            const NAME: &'static str = #name;
            const MESSAGES: &'static [&'static str] = &[
                #(<#messages as ::statefn::__private::Message>::NAME),*
            ];
            type Key = #key;
        }
    }
}

fn function_impl(function: &Function) -> TokenStream {
    let Function { ty, sends, emits, .. } = function;
    let messages = function.messages.iter().map(|handler| &handler.message);
    let timers = function.timers.iter().map(|handler| &handler.message);
    let replies = function.replies.iter().map(|handler| &handler.message);
    // What is no egress is reported where it is listed.
    let emits =
        emits.iter().map(|path| quote_spanned!(place_of(path)=> ::statefn::__private::Egress::declaration(&#path)));
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Function for #ty {
            const SENDS: &'static [::statefn::__private::TargetDeclaration] = &[
                #(::statefn::__private::TargetDeclaration::of::<#sends>()),*
            ];

            fn emits() -> ::std::vec::Vec<::statefn::__private::EgressDeclaration> {
                ::std::vec![#(#emits),*]
            }

            fn handlers(handlers: &mut ::statefn::__private::Handlers<Self>) {
                #(handlers.on::<#messages>();)*
                #(handlers.on_timer::<#timers>();)*
                #(handlers.on_reply::<#replies>();)*
            }
        }
    }
}

fn handles(ty: &Type, index: usize, handler: &Handler) -> TokenStream {
    let Handler { message, output, is_read, in_event_time_order, .. } = handler;
    let index = Literal::usize_unsuffixed(index);
    let access = Ident::new(if *is_read { "Read" } else { "Write" }, Span::call_site());
    let context = context(handler);
    let call = call(handler, quote!(msg));
    // A type that is no message is reported where it is taken, what cannot be returned at the return type.
    let accepts = quote_spanned! {place_of(message)=>
        #[automatically_derived]
        impl ::statefn::__private::Accepts<#message> for #ty {
            type Return = #output;
            const INDEX: u16 = #index;
        }
    };
    quote! {
        #accepts

        #[automatically_derived]
        impl ::statefn::__private::Handles<#message> for #ty {
            const ACCESS: ::statefn::__private::Access = ::statefn::__private::Access::#access;
            const IN_EVENT_TIME_ORDER: bool = #in_event_time_order;

            fn handle(
                &mut self,
                msg: &mut ::statefn::__private::Incoming<#message>,
                #context: &mut ::statefn::__private::Context<'_, Self>,
            ) -> <Self as ::statefn::__private::Accepts<#message>>::Return {
                #call
            }
        }
    }
}

fn handles_timer(ty: &Type, index: usize, handler: &Handler) -> TokenStream {
    let message = &handler.message;
    let index = Literal::usize_unsuffixed(index);
    let context = context(handler);
    let call = call(handler, quote!(timer));
    let returned = quote_spanned!(place_of(&handler.output)=> ::statefn::__private::TimerReturn::into_result(#call));
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::HandlesTimer<#message> for #ty {
            const INDEX: u16 = #index;

            fn fire(
                &mut self,
                timer: &mut ::statefn::__private::Incoming<#message>,
                #context: &mut ::statefn::__private::Context<'_, Self>,
            ) -> ::std::result::Result<(), ::statefn::__private::Fault> {
                #returned
            }
        }
    }
}

fn handles_reply(ty: &Type, index: usize, handler: &Handler) -> TokenStream {
    let reply = &handler.message;
    let index = Literal::usize_unsuffixed(index);
    let context = context(handler);
    let passed = match handler.passing {
        Passing::Reference => quote!(&reply),
        Passing::Value => quote!(reply),
    };
    let call = call_with(handler, passed);
    let returned = quote_spanned!(place_of(&handler.output)=> ::statefn::__private::TimerReturn::into_result(#call));
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::HandlesReply<#reply> for #ty {
            const INDEX: u16 = #index;

            fn on_reply(
                &mut self,
                reply: #reply,
                #context: &mut ::statefn::__private::Context<'_, Self>,
            ) -> ::std::result::Result<(), ::statefn::__private::Fault> {
                #returned
            }
        }
    }
}

/// The name of the context parameter: unused ones begin with `_`.
fn context(handler: &Handler) -> TokenStream {
    if handler.takes_context { quote!(ctx) } else { quote!(_ctx) }
}

/// The call of the user's method.
fn call(handler: &Handler, incoming: TokenStream) -> TokenStream {
    let message = match handler.passing {
        Passing::Reference => quote!(#incoming.get()),
        Passing::Value => quote!(#incoming.take()),
    };
    call_with(handler, message)
}

fn call_with(handler: &Handler, message: TokenStream) -> TokenStream {
    let method = &handler.method;
    let context = handler.takes_context.then(|| quote!(, ctx));
    // What the method returns is reported at its return type.
    quote_spanned!(place_of(&handler.output)=> Self::#method(self, #message #context))
}

fn sends_to(ty: &Type, slot: usize, target: &syn::Path) -> TokenStream {
    let slot = Literal::usize_unsuffixed(slot);
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::SendsTo<#target> for #ty {
            const SLOT: u16 = #slot;
        }
    }
}

/// What only the compiler can check, because it needs the types behind the names.
fn assertions(function: &Function) -> TokenStream {
    let ty = &function.ty;
    let timers = function.timers.iter().map(|handler| &handler.message);
    let covers = match &function.name {
        Name::Own { .. } => quote!(),
        Name::Contract(contract) => {
            quote_spanned!(place_of(contract)=> const _: () = ::statefn::__private::assert_covers::<#contract, #ty>();)
        }
    };
    quote! {
        const _: () = ::statefn::__private::assert_distinct(<#ty as ::statefn::__private::Target>::MESSAGES);
        const _: () = ::statefn::__private::assert_distinct(&[
            #(<#timers as ::statefn::__private::Message>::NAME),*
        ]);
        #covers
    }
}
