//! Finds every mistake and keeps what is sound.
//!
//! Invariant: a handler in the result can be printed; one with a mistake is not in it.

use std::collections::BTreeSet;

use proc_macro2::{Ident, Span};
use quote::ToTokens;
use syn::{
    FnArg, ImplItem, ItemImpl, LitStr, Pat, PatType, Path, Receiver, ReceiverKind, ReturnType, Safety, Signature, Type,
    TypeReference, parse_quote, parse_quote_spanned,
};

use super::parse::{Arguments, Input, Marker, MarkerKind, Method};
use crate::{
    names::check_function_name,
    problems::Problems,
    text::{contains, text_of},
};

/// A function without mistakes in what stands here.
pub(super) struct Function {
    pub(super) ty: Type,
    pub(super) name: Name,
    /// `at` is printed: no method of the user's has that name.
    pub(super) has_address: bool,
    pub(super) sends: Vec<Path>,
    pub(super) emits: Vec<Path>,
    pub(super) messages: Vec<Handler>,
    pub(super) timers: Vec<Handler>,
    pub(super) replies: Vec<Handler>,
    /// Nothing of what the user wrote is left out.
    pub(super) is_complete: bool,
}

/// Where name and key come from.
pub(super) enum Name {
    Own { name: LitStr, key: Type },
    Contract(Path),
}

/// A handler of a message, a timer or a reply.
pub(super) struct Handler {
    pub(super) method: Ident,
    pub(super) message: Type,
    pub(super) passing: Passing,
    pub(super) is_read: bool,
    pub(super) takes_context: bool,
    pub(super) output: Type,
    pub(super) in_event_time_order: bool,
}

/// How the method takes its message.
#[derive(Clone, Copy)]
pub(super) enum Passing {
    Reference,
    Value,
}

/// Returns the function with all that is sound of it, or `None` if nothing can be printed.
pub(super) fn check(input: Input, block: &ItemImpl, problems: &mut Problems) -> Option<Function> {
    let is_inherent = check_block(block, problems);
    let has_address = check_no_method_is_at(block, problems);
    let ty = (*block.self_ty).clone();
    let name = check_name(&input.arguments, &ty, problems);
    let sends = check_sends(input.arguments.sends, &ty, problems);
    let emits = check_emits(input.arguments.emits, problems);
    let mut messages = Vec::new();
    let mut timers = Vec::new();
    let mut replies = Vec::new();
    for method in &input.methods {
        match check_method(method, problems) {
            Some((MarkerKind::OnTimer, handler)) => timers.push(handler),
            Some((MarkerKind::OnReply, handler)) => replies.push(handler),
            Some((_, handler)) => messages.push(handler),
            None => {}
        }
    }
    let messages = without_repeats(messages, "handler", problems);
    let timers = without_repeats(timers, "timer handler", problems);
    let replies = without_repeats(replies, "handler of replies", problems);
    let is_complete = problems.count() == 0;
    is_inherent.then_some(Function { ty, name, has_address, sends, emits, messages, timers, replies, is_complete })
}

fn check_block(block: &ItemImpl, problems: &mut Problems) -> bool {
    if let Some((path, _)) = &block.trait_ {
        let ty = text_of(&block.self_ty);
        problems.add(path, format_args!("`#[function]` stands on an inherent impl block: `impl {ty} {{ .. }}`"));
    }
    if !block.generics.params.is_empty() {
        let text = "a function cannot be generic, its name stands for one type: write an impl block for one type";
        problems.add(&block.generics, text);
    }
    block.trait_.is_none() && block.generics.params.is_empty()
}

/// Returns whether the name of what the macro adds to the type is free.
fn check_no_method_is_at(block: &ItemImpl, problems: &mut Problems) -> bool {
    let methods =
        block.items.iter().filter_map(|item| if let ImplItem::Fn(method) = item { Some(method) } else { None });
    let at = methods.map(|method| &method.sig.ident).find(|ident| *ident == "at");
    if let Some(at) = at {
        problems.add(at, "`at` is the address that `#[function]` adds: give the method another name");
    }
    at.is_none()
}

/// A name that is missing or bad is reported; the rest is printed with what there is, so that other
/// code that uses the function has no errors of its own.
fn check_name(arguments: &Arguments, ty: &Type, problems: &mut Problems) -> Name {
    let Arguments { name, key, implements, are_faulty, .. } = arguments;
    if let Some(contract) = implements {
        let given = [
            name.as_ref().map(|name| ("name", name.to_token_stream())),
            key.as_ref().map(|key| ("key", key.to_token_stream())),
        ];
        for (argument, place) in given.into_iter().flatten() {
            problems.add(place, format_args!("`{argument}` comes from the contract: remove it, or `implements`"));
        }
        return Name::Contract(contract.clone());
    }
    match name {
        Some(name) => check_function_name(name, problems),
        None if !are_faulty => {
            problems.add(ty, "a function needs a stable name: `#[function(name = \"namespace/name\")]`");
        }
        None => {}
    }
    Name::Own {
        name: name.clone().unwrap_or_else(|| LitStr::new("", Span::call_site())),
        key: key.clone().unwrap_or_else(|| parse_quote!(::std::string::String)),
    }
}

/// `Self` and the type's own name are the same target.
fn check_sends(sends: Vec<Path>, ty: &Type, problems: &mut Problems) -> Vec<Path> {
    let own = text_of(ty);
    let name = |path: &Path| if path.is_ident("Self") { own.clone() } else { text_of(path) };
    once(sends, "sends", name, problems)
}

fn check_emits(emits: Vec<Path>, problems: &mut Problems) -> Vec<Path> {
    once(emits, "emits", |path| text_of(path), problems)
}

fn once(paths: Vec<Path>, list: &str, name: impl Fn(&Path) -> String, problems: &mut Problems) -> Vec<Path> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for path in paths {
        if seen.insert(name(&path)) {
            kept.push(path);
        } else {
            let text = format!("`{}` is listed twice in `{list}`: remove one of them", name(&path));
            problems.add(path, text);
        }
    }
    kept
}

fn check_method(method: &Method, problems: &mut Problems) -> Option<(MarkerKind, Handler)> {
    let before = problems.count();
    let kind = check_markers(&method.markers, problems)?;
    check_qualifiers(method, problems);
    let receiver = check_receiver(&method.signature, kind, problems);
    let message = check_parameters(&method.signature, receiver, problems);
    let output = check_output(&method.signature, kind, problems);
    if problems.count() > before {
        return None;
    }
    let (message, passing, takes_context) = message?;
    let handler = Handler {
        method: method.signature.ident.clone(),
        message,
        passing,
        is_read: receiver? == Access::Read,
        takes_context,
        output,
        in_event_time_order: matches!(kind, MarkerKind::On { in_event_time_order: true }),
    };
    Some((kind, handler))
}

/// Returns the one marker of a method.
fn check_markers(markers: &[Marker], problems: &mut Problems) -> Option<MarkerKind> {
    let (first, others) = markers.split_first()?;
    if let Some(other) = others.first() {
        let text = "a method handles one thing: keep one of `#[on]`, `#[on_timer]` and `#[on_reply]`, and write a second method";
        problems.add(&other.attribute, text);
        return None;
    }
    if let MarkerKind::Later = first.kind {
        let name = text_of(first.attribute.path());
        problems.add(&first.attribute, format_args!("`#[{name}]` is not supported yet: remove it"));
        return None;
    }
    Some(first.kind)
}

fn check_qualifiers(method: &Method, problems: &mut Problems) {
    let Signature { ident, asyncness, safety, generics, .. } = &method.signature;
    if let Some(asyncness) = asyncness {
        let text = format_args!("the handler `{ident}` cannot be `async`: handlers do not wait; remove `async`");
        problems.add(asyncness, text);
    }
    if let Safety::Unsafe(unsafety) = safety {
        problems.add(unsafety, format_args!("the handler `{ident}` cannot be `unsafe`: remove `unsafe`"));
    }
    if !generics.params.is_empty() {
        let text = format_args!("the handler `{ident}` cannot be generic: name the type of its message");
        problems.add(generics, text);
    }
    if let Some(condition) = &method.condition {
        let text = "`#[cfg]` on a handler is not supported, what a function takes is stable: put it inside the method";
        problems.add(condition, text);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn check_receiver(signature: &Signature, kind: MarkerKind, problems: &mut Problems) -> Option<Access> {
    let what = match kind {
        MarkerKind::OnTimer => Some("timer"),
        MarkerKind::OnReply => Some("reply"),
        _ => None,
    };
    let begin = if what.is_some() { "`&mut self`" } else { "`&mut self`, or with `&self` to read only" };
    let ident = &signature.ident;
    let Some(receiver) = signature.receiver() else {
        problems.add(ident, format_args!("the handler `{ident}` has no `self`: begin with {begin}"));
        return None;
    };
    match access(receiver) {
        Some(Access::Read) if let Some(what) = what => {
            problems.add(
                receiver,
                format_args!("a {what} handler takes `&mut self`: a {what} that only reads does nothing"),
            );
            None
        }
        Some(access) => Some(access),
        None => {
            problems.add(receiver, format_args!("the handler `{ident}` cannot own the state: begin with {begin}"));
            None
        }
    }
}

fn access(receiver: &Receiver) -> Option<Access> {
    match &receiver.kind {
        ReceiverKind::Reference(_, _, Some(_)) => Some(Access::Write),
        ReceiverKind::Reference(_, _, None) => Some(Access::Read),
        _ => None,
    }
}

/// Returns the message, how it is passed, and whether a context comes behind it.
fn check_parameters(
    signature: &Signature,
    receiver: Option<Access>,
    problems: &mut Problems,
) -> Option<(Type, Passing, bool)> {
    let ident = &signature.ident;
    let mut parameters = signature.inputs.iter().filter_map(typed);
    let Some(first) = parameters.next().filter(|first| context(first).is_none()) else {
        problems
            .add(ident, format_args!("the handler `{ident}` takes no message: add `msg: &YourMessage` behind `self`"));
        return None;
    };
    let second = parameters.next();
    if let Some(second) = second {
        check_context(second, receiver, problems);
    }
    if let Some(third) = parameters.next() {
        let text = format_args!("the handler `{ident}` has too many parameters: `self`, a message and `ctx` are all");
        problems.add(third, text);
    }
    let (message, passing) = check_message(first, problems)?;
    Some((message, passing, second.is_some()))
}

fn typed(argument: &FnArg) -> Option<&PatType> {
    match argument {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    }
}

/// Returns the reference, if the parameter is a `&Context<..>` or `&mut Context<..>`.
fn context(parameter: &PatType) -> Option<&TypeReference> {
    let Type::Reference(reference) = &*parameter.ty else { return None };
    let Type::Path(path) = &*reference.elem else { return None };
    let is_context = path.path.segments.last().is_some_and(|last| last.ident == "Context");
    is_context.then_some(reference)
}

fn check_context(parameter: &PatType, receiver: Option<Access>, problems: &mut Problems) {
    match context(parameter) {
        None => {
            let fix = if receiver == Some(Access::Read) { "&Context<Self>" } else { "&mut Context<Self>" };
            let text = format_args!("behind the message a handler takes `ctx: {fix}` and nothing else");
            problems.add(parameter, text);
        }
        Some(reference) if reference.mutability.is_some() && receiver == Some(Access::Read) => {
            let text =
                "a handler with `&self` only reads: take `ctx: &Context<Self>`, or `&mut self` to change something";
            problems.add(parameter, text);
        }
        Some(_) => {}
    }
}

fn check_message(parameter: &PatType, problems: &mut Problems) -> Option<(Type, Passing)> {
    let name = match &*parameter.pat {
        Pat::Ident(pat) => pat.ident.to_string(),
        _ => "msg".to_owned(),
    };
    match &*parameter.ty {
        Type::Reference(reference) if reference.mutability.is_some() => {
            let message = text_of(&reference.elem);
            let text =
                format_args!("a message cannot be changed: take `{name}: &{message}`, or `mut {name}: {message}`");
            problems.add(parameter, text);
            None
        }
        Type::ImplTrait(ty) => {
            problems.add(ty, "a handler takes one type of message: name it, in place of `impl ..`");
            None
        }
        Type::Reference(reference) => Some(((*reference.elem).clone(), Passing::Reference)),
        message => Some((message.clone(), Passing::Value)),
    }
}

fn check_output(signature: &Signature, kind: MarkerKind, problems: &mut Problems) -> Type {
    let output = match &signature.output {
        ReturnType::Default => parse_quote_spanned!(signature.ident.span()=> ()),
        ReturnType::Type(_, output) => (**output).clone(),
    };
    if matches!(kind, MarkerKind::OnTimer | MarkerKind::OnReply) {
        return output;
    }
    if contains(&output, "impl") {
        problems.add(&output, "an answer has a named type: name it, in place of `impl ..`");
    } else if contains(&output, "&") {
        let text =
            format_args!("an answer leaves the function, so `{}` cannot borrow: return owned values", text_of(&output));
        problems.add(&output, text);
    }
    output
}

fn without_repeats(handlers: Vec<Handler>, what: &str, problems: &mut Problems) -> Vec<Handler> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for handler in handlers {
        let message = text_of(&handler.message);
        if seen.insert(message.clone()) {
            kept.push(handler);
        } else {
            let text = format_args!("`{message}` has a {what} already: remove one of them, or make it another message");
            problems.add(&handler.message, text);
        }
    }
    kept
}
