//! `#[activity]`: an async function that calls the outside, as a type that handlers name.
//!
//! The function stays; beside it stands a struct of the same name, which is in another namespace, with
//! an impl of `Activity`.
//!
//! Deliberately absent: how it is tried; that is a value of the attribute.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, FnArg, ItemFn, LitStr, ReturnType, Safety, Token, Type};

use crate::{
    arguments::{each_argument, text, unknown},
    names::check_function_name,
    problems::Problems,
    text::place_of,
};

/// What the user wrote, without mistakes.
struct Activity {
    name: LitStr,
    policy: Option<Expr>,
    call: Type,
    takes_context: bool,
    output: Type,
    function: ItemFn,
}

/// Expands the attribute.
pub(crate) fn activity(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let (name, policy) = parse_arguments(arguments, &mut problems);
    let function: Option<ItemFn> = problems.ok(syn::parse2(item.clone()));
    let activity = function.and_then(|function| check(name, policy, function, &mut problems));
    let errors = problems.into_compile_errors();
    let printed = activity.map_or(item, |activity| expand(&activity));
    quote!(#errors #printed)
}

fn parse_arguments(tokens: TokenStream, problems: &mut Problems) -> (Option<LitStr>, Option<Expr>) {
    let (mut name, mut policy) = (None, None);
    each_argument(tokens, problems, |argument, input, problems| {
        match argument.to_string().as_str() {
            "name" => {
                let given = text(argument, input, "shop/charge")?;
                check_function_name(&given, problems);
                name = Some(given);
            }
            "policy" => {
                input.parse::<Token![=]>()?;
                policy = Some(input.parse()?);
            }
            _ => return Err(unknown("#[activity]", argument, "`name`, `policy`")),
        }
        Ok(())
    });
    (name, policy)
}

fn check(name: Option<LitStr>, policy: Option<Expr>, function: ItemFn, problems: &mut Problems) -> Option<Activity> {
    let before = problems.count();
    let signature = &function.sig;
    let ident = &signature.ident;
    if name.is_none() && before == 0 {
        let text = "an activity needs a stable name: `#[activity(name = \"namespace/name\")]`";
        problems.add(ident, text);
    }
    if signature.asyncness.is_none() {
        problems.add(ident, format_args!("the activity `{ident}` waits for the outside: write `async fn {ident}`"));
    }
    if let Safety::Unsafe(unsafety) = &signature.safety {
        problems.add(unsafety, format_args!("the activity `{ident}` cannot be `unsafe`: remove `unsafe`"));
    }
    if !signature.generics.params.is_empty() {
        let text = format_args!("the activity `{ident}` cannot be generic: name the type that it is given");
        problems.add(&signature.generics, text);
    }
    let call = check_parameters(&function, problems);
    let output = match &signature.output {
        ReturnType::Type(_, output) => Some((**output).clone()),
        ReturnType::Default => {
            let text = format_args!("the activity `{ident}` can fail: let it return `Result<answer, error>`");
            problems.add(ident, text);
            None
        }
    };
    if problems.count() > before {
        return None;
    }
    let takes_context = signature.inputs.len() > 1;
    Some(Activity { name: name?, policy, call: call?, takes_context, output: output?, function })
}

/// Returns the type that the activity is given.
fn check_parameters(function: &ItemFn, problems: &mut Problems) -> Option<Type> {
    let ident = &function.sig.ident;
    let mut parameters = function.sig.inputs.iter();
    let Some(FnArg::Typed(first)) = parameters.next() else {
        problems.add(ident, format_args!("the activity `{ident}` takes nothing: add what it is to be given"));
        return None;
    };
    if let Some(third) = parameters.nth(1) {
        let text = format_args!("the activity `{ident}` has too many parameters: a call and `ctx` are all");
        problems.add(third, text);
    }
    if matches!(&*first.ty, Type::Reference(_)) {
        problems.add(&first.ty, "an activity outlives the handler that asks for it: take an owned value");
        return None;
    }
    Some((*first.ty).clone())
}

fn expand(activity: &Activity) -> TokenStream {
    let Activity { name, policy, call, takes_context, output, function } = activity;
    let ItemFn { vis, sig, .. } = function;
    let ident: &Ident = &sig.ident;
    let policy = policy.as_ref().map_or_else(|| quote!(::statefn::__private::Policy::new()), ToTokens::to_token_stream);
    let doc = format!("The activity `{}`.", name.value());
    let context = takes_context.then(|| quote!(, ctx));
    let ctx = if *takes_context { quote!(ctx) } else { quote!(_ctx) };
    // What cannot be given or returned is reported where it stands.
    let given = quote_spanned!(place_of(call)=> type Call = #call;);
    let returned = quote_spanned!(place_of(output)=> type Return = #output;);
    quote! {
        #function

        #[doc = #doc]
        #[allow(non_camel_case_types, reason = "an activity is called by the name of its function")]
        #[derive(Debug)]
        #vis struct #ident {}

        #[automatically_derived]
        impl ::statefn::__private::Activity for #ident {
            const NAME: &'static str = #name;
            const POLICY: ::statefn::__private::Policy = #policy;
            #given
            #returned

            fn attempt(
                call: #call,
                #ctx: ::statefn::__private::ActivityContext,
            ) -> impl ::std::future::Future<Output = Self::Return> + ::std::marker::Send {
                #ident(call #context)
            }
        }
    }
}
