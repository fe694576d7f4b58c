//! `#[derive(Schema)]`, which `#[derive(Message)]` and `#[derive(Reject)]` have within: what serde makes of a
//! type, as JSON Schema.
//!
//! Options of serde count. One that is not known, or that lets other code write the value, makes it
//! anything: a schema may say too little, and never something wrong.
//!
//! Deliberately absent: generic types, whose schema depends on what they are made of.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Lit, Meta, Token, Type, Variant, ext::IdentExt,
    punctuated::Punctuated,
};

use crate::problems::Problems;

/// Options of serde that change nothing of what JSON looks like, or that are read where they stand.
const KNOWN: [&str; 18] = [
    "rename",
    "rename_all",
    "default",
    "deny_unknown_fields",
    "tag",
    "content",
    "untagged",
    "skip",
    "skip_deserializing",
    "skip_serializing",
    "skip_serializing_if",
    "alias",
    "bound",
    "borrow",
    "crate",
    "expecting",
    "flatten",
    "transparent",
];

/// Expands the derive.
pub(crate) fn schema(item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let item: Option<DeriveInput> = problems.ok(syn::parse2(item));
    let generics = item.as_ref().map(|item| &item.generics).filter(|generics| !generics.params.is_empty());
    if let Some(generics) = generics {
        problems.add(generics, "a schema stands for one type: derive `Schema` on a type without parameters");
    }
    let printed = item.filter(|item| item.generics.params.is_empty()).map(|item| expand(&item));
    let errors = problems.into_compile_errors();
    quote!(#errors #printed)
}

/// Prints the schema of a type without parameters.
pub(crate) fn expand(item: &DeriveInput) -> TokenStream {
    let ident = &item.ident;
    let name = ident.unraw().to_string();
    let schema = schema_of(item);
    quote! {
        #[automatically_derived]
        impl ::statefn::__private::Schema for #ident {
            fn schema(within: &mut ::statefn::__private::Within) -> ::statefn::__private::Value {
                #[allow(unused_imports, reason = "some types have schemas of their own")]
                use ::statefn::__private::Unknown as _;
                within.open(::std::concat!(::std::module_path!(), "::", #name), |within| #schema)
            }
        }
    }
}

/// The method by which a message says its schema.
pub(crate) fn method() -> TokenStream {
    quote! {
        fn json_schema() -> ::statefn::__private::Value {
            ::statefn::__private::schema_of::<Self>()
        }
    }
}

/// What `#[serde(..)]` says of a type, a variant or a field.
#[derive(Default)]
struct Options(Vec<Meta>);

impl Options {
    fn of(attributes: &[Attribute]) -> Self {
        let attributes = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
        let parse = |attribute: &Attribute| {
            // What serde itself will refuse says nothing here.
            let parsed = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            parsed.map(|options| options.into_iter().collect()).unwrap_or_default()
        };
        Self(attributes.flat_map(|attribute| -> Vec<Meta> { parse(attribute) }).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|option| option.path().is_ident(name))
    }

    /// The text that `name = ".."` gives.
    fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|option| match option {
            Meta::NameValue(pair) if pair.path.is_ident(name) => text_in(&pair.value),
            _ => None,
        })
    }

    /// Whether all of it is understood.
    fn are_known(&self) -> bool {
        // `rename(serialize = "..")` and the like give two names; `bound` says nothing of JSON.
        let is_plain = |option: &Meta| !matches!(option, Meta::List(_)) || option.path().is_ident("bound");
        let is_known = |option: &Meta| KNOWN.iter().any(|known| option.path().is_ident(known));
        self.0.iter().all(|option| is_plain(option) && is_known(option))
    }

    /// Whether a field stands under other names than its own or that of `rename = ".."`.
    fn hides_names(&self) -> bool {
        self.has("flatten") || self.has("alias") || self.has("rename") && self.text("rename").is_none()
    }

    fn is_skipped(&self) -> bool {
        self.has("skip") || self.has("skip_deserializing")
    }
}

fn text_in(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// What the comment of an item says, in one line.
fn meaning(attributes: &[Attribute]) -> String {
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let lines = docs.filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) => text_in(&pair.value),
        _ => None,
    });
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    // As rustdoc: the first paragraph is the summary.
    lines.into_iter().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn anything() -> TokenStream {
    quote!(::statefn::__private::anything_schema())
}

fn described(attributes: &[Attribute], schema: &TokenStream) -> TokenStream {
    let meaning = meaning(attributes);
    match meaning.is_empty() {
        true => schema.clone(),
        false => quote!(::statefn::__private::described_schema(#meaning, #schema)),
    }
}

fn schema_of(item: &DeriveInput) -> TokenStream {
    let options = Options::of(&item.attrs);
    let schema = match &item.data {
        _ if !options.are_known() => anything(),
        Data::Struct(data) => fields_of(&data.fields, &options),
        Data::Enum(data) => enum_of(data.variants.iter(), &options),
        Data::Union(_) => anything(),
    };
    described(&item.attrs, &schema)
}

/// What fields look like, side by side.
fn fields_of(fields: &Fields, of: &Options) -> TokenStream {
    match fields {
        Fields::Unit => quote!(::statefn::__private::unit_schema()),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => value_of(&fields.unnamed[0]),
        Fields::Unnamed(fields) if fields.unnamed.iter().any(|field| Options::of(&field.attrs).is_skipped()) => {
            anything()
        }
        Fields::Unnamed(fields) => {
            let values = fields.unnamed.iter().map(value_of);
            quote!(::statefn::__private::tuple_schema(::std::vec![#(#values),*]))
        }
        Fields::Named(fields) if of.has("transparent") => {
            fields.named.iter().find(|field| !Options::of(&field.attrs).is_skipped()).map_or_else(anything, value_of)
        }
        Fields::Named(fields) => {
            // Fields that stand within another one's place, or under names that are not read, count as well.
            let is_whole = |field: &Field| !Options::of(&field.attrs).hides_names();
            let is_closed = of.has("deny_unknown_fields") && fields.named.iter().all(is_whole);
            let printed = fields.named.iter().filter_map(|field| field_of(field, of));
            quote!(::statefn::__private::object_schema(#is_closed, ::std::vec![#(#printed),*]))
        }
    }
}

/// A named field; none if it is not there, or if its own fields stand in its place.
fn field_of(field: &Field, of: &Options) -> Option<TokenStream> {
    let options = Options::of(&field.attrs);
    if options.is_skipped() || options.hides_names() {
        return None;
    }
    let written = field.ident.as_ref()?.unraw().to_string();
    let name = options.text("rename").unwrap_or_else(|| renamed(&written, of, Case::field));
    let (meaning, value) = (meaning(&field.attrs), value_of(field));
    let is_optional = of.has("default")
        || options.has("default")
        || options.has("skip_serializing")
        || options.has("skip_serializing_if")
        || is_option(&field.ty);
    Some(quote! {
        ::statefn::__private::FieldSchema {
            name: #name,
            meaning: #meaning,
            is_optional: #is_optional,
            schema: #value,
        }
    })
}

fn value_of(field: &Field) -> TokenStream {
    let ty = &field.ty;
    match Options::of(&field.attrs).are_known() {
        true => quote!(::statefn::__private::Of::<#ty>::new().schema(within)),
        false => anything(),
    }
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

fn enum_of<'a>(variants: impl Iterator<Item = &'a Variant>, of: &Options) -> TokenStream {
    let tag = match (of.text("tag"), of.text("content")) {
        _ if of.has("untagged") => quote!(Nowhere),
        (Some(tag), Some(content)) => quote!(Beside(#tag, #content)),
        (Some(tag), None) => quote!(Field(#tag)),
        (None, _) => quote!(Outside),
    };
    let mut printed = Vec::new();
    for variant in variants {
        let options = Options::of(&variant.attrs);
        if options.is_skipped() {
            continue;
        }
        if !options.are_known() || options.has("untagged") {
            // Another one may look like anything.
            return anything();
        }
        let name = options.text("rename").unwrap_or_else(|| renamed(&name_of(&variant.ident), of, Case::variant));
        let meaning = meaning(&variant.attrs);
        let schema = match &variant.fields {
            Fields::Unit => quote!(::std::option::Option::None),
            fields => {
                let schema = fields_of(fields, &options);
                quote!(::std::option::Option::Some(#schema))
            }
        };
        printed.push(quote! {
            ::statefn::__private::VariantSchema { name: #name, meaning: #meaning, schema: #schema }
        });
    }
    quote!(::statefn::__private::variants_schema(::statefn::__private::Tag::#tag, ::std::vec![#(#printed),*]))
}

fn name_of(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// A name as `rename_all` has it.
fn renamed(written: &str, of: &Options, apply: fn(Case, &str) -> String) -> String {
    let case = of.text("rename_all").and_then(|case| Case::ALL.into_iter().find(|(name, _)| *name == case));
    case.map_or_else(|| written.to_owned(), |(_, case)| apply(case, written))
}

/// How serde writes names.
#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Between(char, bool),
}

impl Case {
    const ALL: [(&'static str, Self); 8] = [
        ("lowercase", Self::Lower),
        ("UPPERCASE", Self::Upper),
        ("PascalCase", Self::Pascal),
        ("camelCase", Self::Camel),
        ("snake_case", Self::Between('_', false)),
        ("SCREAMING_SNAKE_CASE", Self::Between('_', true)),
        ("kebab-case", Self::Between('-', false)),
        ("SCREAMING-KEBAB-CASE", Self::Between('-', true)),
    ];

    /// A field, which stands in snake case.
    fn field(self, written: &str) -> String {
        match self {
            Self::Lower => written.to_owned(),
            Self::Upper => written.to_ascii_uppercase(),
            Self::Pascal | Self::Camel => {
                let pascal: String = written.split('_').map(capitalized).collect();
                if matches!(self, Self::Camel) { uncapitalized(&pascal) } else { pascal }
            }
            Self::Between(sign, is_upper) => {
                let text = written.replace('_', &sign.to_string());
                if is_upper { text.to_ascii_uppercase() } else { text }
            }
        }
    }

    /// A variant, which stands in pascal case.
    fn variant(self, written: &str) -> String {
        match self {
            Self::Lower => written.to_ascii_lowercase(),
            Self::Upper => written.to_ascii_uppercase(),
            Self::Pascal => written.to_owned(),
            Self::Camel => uncapitalized(written),
            Self::Between(sign, is_upper) => {
                let mut text = String::new();
                for (place, letter) in written.char_indices() {
                    if place > 0 && letter.is_uppercase() {
                        text.push(sign);
                    }
                    text.push(letter.to_ascii_lowercase());
                }
                if is_upper { text.to_ascii_uppercase() } else { text }
            }
        }
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

fn uncapitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}
