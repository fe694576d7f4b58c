//! JSON Schema (draft 2020-12) of messages, answers and rejections: what people and tools are told of them.
//!
//! `#[derive(Message)]`, `#[derive(Reject)]` and `#[derive(Schema)]` say what serde makes of a type, by
//! the functions here. What nothing is known of may be anything: the schema `true`. So a schema never refuses
//! what the type takes, but it may say less.
//!
//! Deliberately absent: references. What a type holds stands within it; one that holds itself may hold
//! anything there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    marker::PhantomData,
};

pub use serde_json::Value;
use serde_json::{Map, json};

/// A type whose JSON is known; derived by `#[derive(Schema)]`.
pub trait Schema {
    /// Its schema.
    fn schema(within: &mut Within) -> Value;
}

/// The schema of a type.
#[must_use]
pub fn of<T: Schema + ?Sized>() -> Value {
    T::schema(&mut Within::default())
}

/// The types whose schemas are being put together, so that one that holds itself comes to an end.
#[derive(Debug, Default)]
pub struct Within(Vec<&'static str>);

impl Within {
    /// Puts the schema of the type of that name together.
    pub fn open(&mut self, name: &'static str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if self.0.contains(&name) {
            return anything();
        }
        self.0.push(name);
        let schema = make(self);
        self.0.pop();
        schema
    }
}

/// A type of which a derive asks whether it has a schema: with one the method of this type is taken, and
/// else the one of [`Unknown`].
#[derive(Debug)]
pub struct Of<T: ?Sized>(PhantomData<T>);

impl<T: ?Sized> Of<T> {
    /// Asks for `T`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only derives make one")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Schema + ?Sized> Of<T> {
    /// The schema of `T`.
    pub fn schema(&self, within: &mut Within) -> Value {
        T::schema(within)
    }
}

/// What is said of a type without a schema.
pub trait Unknown {
    /// It may be anything.
    fn schema(&self, _: &mut Within) -> Value {
        anything()
    }
}

impl<T: ?Sized> Unknown for Of<T> {}

/// A field of a struct, as serde has it.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What its comment says.
    pub meaning: &'static str,
    /// Whether it may be left out.
    pub is_optional: bool,
    /// What it holds.
    pub schema: Value,
}

/// How the variants of an enum are told apart.
#[derive(Debug, Clone, Copy)]
pub enum Tag {
    /// By the name around what they hold.
    Outside,
    /// By a field among theirs.
    Field(&'static str),
    /// By a field beside the one that has what they hold.
    Beside(&'static str, &'static str),
    /// Not at all.
    Nowhere,
}

/// A variant of an enum.
#[derive(Debug)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// What its comment says.
    pub meaning: &'static str,
    /// What it holds, if it holds anything.
    pub schema: Option<Value>,
}

/// Any value.
#[must_use]
pub fn anything() -> Value {
    Value::Bool(true)
}

/// A schema with what the comment of its type says.
#[must_use]
pub fn described(meaning: &str, mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut().filter(|_| !meaning.is_empty()) {
        object.insert("description".into(), meaning.into());
    } else if schema == anything() && !meaning.is_empty() {
        schema = json!({ "description": meaning });
    }
    schema
}

/// A struct with named fields; `is_closed` if it takes no others.
#[must_use]
pub fn object(is_closed: bool, fields: Vec<Field>) -> Value {
    let required: Vec<&str> = fields.iter().filter(|field| !field.is_optional).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object" });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let properties = fields.into_iter().map(|field| (field.name.to_owned(), described(field.meaning, field.schema)));
    schema["properties"] = Value::Object(properties.collect());
    if is_closed {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

/// A struct with numbered fields: a list of just these.
#[must_use]
pub fn tuple(fields: Vec<Value>) -> Value {
    let count = fields.len();
    json!({ "type": "array", "prefixItems": fields, "minItems": count, "maxItems": count })
}

/// A value without content.
#[must_use]
pub fn unit() -> Value {
    json!({ "type": "null" })
}

/// An enum.
#[must_use]
pub fn variants(tag: Tag, variants: Vec<Variant>) -> Value {
    let is_plain = variants.iter().all(|variant| variant.schema.is_none() && variant.meaning.is_empty());
    if is_plain && matches!(tag, Tag::Outside) {
        let names: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
        return json!({ "type": "string", "enum": names });
    }
    let one = |Variant { name, meaning, schema }: Variant| described(meaning, variant(tag, name, schema));
    let all: Vec<Value> = variants.into_iter().map(one).collect();
    // Untagged variants may have values in common.
    json!({ if matches!(tag, Tag::Nowhere) { "anyOf" } else { "oneOf" }: all })
}

fn variant(tag: Tag, name: &'static str, schema: Option<Value>) -> Value {
    let field = |name: &'static str, schema| Field { name, meaning: "", is_optional: false, schema };
    match (tag, schema) {
        (Tag::Outside, None) => json!({ "const": name }),
        (Tag::Outside, Some(schema)) => object(true, vec![field(name, schema)]),
        (Tag::Field(tag), schema) => tagged(tag, name, schema),
        (Tag::Beside(tag, _), None) => object(false, vec![field(tag, json!({ "const": name }))]),
        (Tag::Beside(tag, content), Some(schema)) => {
            object(false, vec![field(tag, json!({ "const": name })), field(content, schema)])
        }
        (Tag::Nowhere, schema) => schema.unwrap_or_else(unit),
    }
}

/// What a variant holds, with its tag among the fields.
fn tagged(tag: &'static str, name: &str, schema: Option<Value>) -> Value {
    let mut object = match schema {
        Some(Value::Object(object)) => object,
        _ => Map::from_iter([("type".to_owned(), "object".into())]),
    };
    let within = |object: &mut Map<String, Value>, part: &str, empty: Value| {
        object.entry(part).or_insert(empty);
    };
    within(&mut object, "properties", json!({}));
    within(&mut object, "required", json!([]));
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.insert(tag.to_owned(), json!({ "const": name }));
    }
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.insert(0, tag.into());
    }
    Value::Object(object)
}

macro_rules! plain {
    ($($schema:tt: $($type:ty),+;)+) => {$($(
        impl Schema for $type {
            fn schema(_: &mut Within) -> Value {
                json!($schema)
            }
        }
    )+)+};
}

plain! {
    { "type": "null" }: ();
    { "type": "boolean" }: bool;
    { "type": "integer" }: i8, i16, i32, i64, isize;
    { "type": "integer", "minimum": 0 }: u8, u16, u32, u64, usize;
    { "type": "number" }: f32, f64;
    { "type": "string" }: str, String;
    { "type": "string", "minLength": 1, "maxLength": 4 }: char;
    { "type": "string", "format": "uuid" }: uuid::Uuid;
    { "type": "integer" }: crate::EventTime, crate::ProcessingTime;
}

macro_rules! lists {
    ($($type:ident),+) => {$(
        impl<T: Schema> Schema for $type<T> {
            fn schema(within: &mut Within) -> Value {
                json!({ "type": "array", "items": T::schema(within) })
            }
        }
    )+};
}

lists!(Vec, VecDeque, BTreeSet);

impl<T: Schema, const N: usize> Schema for [T; N] {
    fn schema(within: &mut Within) -> Value {
        json!({ "type": "array", "items": T::schema(within), "minItems": N, "maxItems": N })
    }
}

impl<T: Schema> Schema for Option<T> {
    fn schema(within: &mut Within) -> Value {
        match T::schema(within) {
            Value::Bool(true) => anything(),
            schema => json!({ "anyOf": [schema, unit()] }),
        }
    }
}

impl<T: Schema + ?Sized> Schema for Box<T> {
    fn schema(within: &mut Within) -> Value {
        T::schema(within)
    }
}

impl<K, V: Schema> Schema for BTreeMap<K, V> {
    fn schema(within: &mut Within) -> Value {
        json!({ "type": "object", "additionalProperties": V::schema(within) })
    }
}

impl<A: Schema, B: Schema> Schema for (A, B) {
    fn schema(within: &mut Within) -> Value {
        tuple(vec![A::schema(within), B::schema(within)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unknowable;

    /// As a derive prints it.
    struct Tree;

    impl Schema for Tree {
        fn schema(within: &mut Within) -> Value {
            within.open("Tree", |within| {
                let field = |name, schema| Field { name, meaning: "", is_optional: false, schema };
                object(
                    true,
                    vec![
                        field("of", Of::<Unknowable>::new().schema(within)),
                        field("under", Of::<Vec<Self>>::new().schema(within)),
                        field("count", Of::<u8>::new().schema(within)),
                    ],
                )
            })
        }
    }

    #[test]
    fn what_is_unknown_and_what_holds_itself_may_be_anything() {
        let expected = json!({
            "type": "object",
            "required": ["of", "under", "count"],
            "properties": {
                "of": true,
                "under": { "type": "array", "items": true },
                "count": { "type": "integer", "minimum": 0 },
            },
            "additionalProperties": false,
        });
        assert_eq!(of::<Tree>(), expected);
        assert_eq!(of::<(Tree, Box<Tree>)>()["prefixItems"], json!([expected, expected]), "side by side is not within");
    }

    #[test]
    fn values_of_the_standard_library() {
        for (found, expected) in [
            (of::<Option<String>>(), json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] })),
            (
                of::<BTreeMap<String, bool>>(),
                json!({ "type": "object", "additionalProperties": { "type": "boolean" } }),
            ),
            (of::<[f64; 2]>(), json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 })),
            (of::<()>(), json!({ "type": "null" })),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn variants_are_told_apart_as_serde_does() {
        let all = || {
            vec![
                Variant { name: "none", meaning: "Nothing.", schema: None },
                Variant { name: "some", meaning: "", schema: Some(object(false, vec![])) },
            ]
        };
        let content = json!({ "type": "object", "properties": {} });
        let tag = |name: &str| json!({ "const": name });
        for (tag, one_of) in [
            (
                Tag::Outside,
                json!([
                    { "const": "none", "description": "Nothing." },
                    { "type": "object", "required": ["some"], "properties": { "some": content }, "additionalProperties": false },
                ]),
            ),
            (
                Tag::Field("is"),
                json!([
                    { "type": "object", "required": ["is"], "properties": { "is": tag("none") }, "description": "Nothing." },
                    { "type": "object", "required": ["is"], "properties": { "is": tag("some") } },
                ]),
            ),
            (
                Tag::Beside("is", "of"),
                json!([
                    { "type": "object", "required": ["is"], "properties": { "is": tag("none") }, "description": "Nothing." },
                    { "type": "object", "required": ["is", "of"], "properties": { "is": tag("some"), "of": content } },
                ]),
            ),
        ] {
            assert_eq!(variants(tag, all()), json!({ "oneOf": one_of }));
        }
        let untagged = json!({ "anyOf": [{ "type": "null", "description": "Nothing." }, content] });
        assert_eq!(variants(Tag::Nowhere, all()), untagged);
        let plain = ["a", "b"].map(|name| Variant { name, meaning: "", schema: None });
        assert_eq!(variants(Tag::Outside, plain.into()), json!({ "type": "string", "enum": ["a", "b"] }));
    }
}
