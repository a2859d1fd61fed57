//! From a payload to a GraphQL result: the declared type, the selection, the envelope.

use super::document::Field;
use crate::event;
use graphql_parser::schema::{self, Definition, Type, TypeDefinition, TypeExtension, parse_schema};
use serde_json::{Map, Value, value::RawValue};

/// The root type of subscriptions, unless the schema says otherwise.
const ROOT: &str = "Subscription";

/// The name of the type that a schema declares for a subscription, lists and `!` left out; `None` when it declares none.
/// A bare field, `name(arg: T): Type`, is a schema, too.
///
/// # Errors
/// When it cannot be read.
pub fn declared(sdl: &str, name: &str) -> Result<Option<String>, String> {
    let wrapped = format!("type {ROOT} {{ {sdl} }}");
    let parsed = parse_schema::<String>(sdl).or_else(|why| parse_schema::<String>(&wrapped).map_err(|_| why));
    let document = parsed.map_err(|why| why.to_string().trim().replace('\n', " "))?.into_static();
    let root = document.definitions.iter().find_map(|definition| match definition {
        Definition::SchemaDefinition(schema) => schema.subscription.as_deref(),
        _ => None,
    });
    let root = root.unwrap_or(ROOT);
    let mut fields = document.definitions.iter().flat_map(|definition| fields_of(definition, root));
    Ok(fields.find(|field| field.name == name).map(|field| named(&field.field_type).to_owned()))
}

fn fields_of<'d>(definition: &'d Definition<'static, String>, root: &str) -> &'d [schema::Field<'static, String>] {
    match definition {
        Definition::TypeDefinition(TypeDefinition::Object(object)) if object.name == root => &object.fields,
        Definition::TypeExtension(TypeExtension::Object(object)) if object.name == root => &object.fields,
        _ => &[],
    }
}

fn named<'d>(declared: &'d Type<'static, String>) -> &'d str {
    match declared {
        Type::NamedType(name) => name,
        Type::ListType(inner) | Type::NonNullType(inner) => named(inner),
    }
}

/// How one operation wants to see payloads.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// The root field.
    pub field: Field,
    /// The name of its type, if declared.
    pub declared: Option<String>,
}

impl Shape {
    /// All of a payload under this name, as whoever selects nothing sees it.
    pub fn whole(name: &str, declared: Option<String>) -> Self {
        Shape { field: Field { key: name.into(), name: name.into(), fields: Vec::new() }, declared }
    }

    /// `{"data":{"<key>":…}}`. Text stays text where a string is declared and nothing is selected; other payloads are
    /// JSON if they can be read as such.
    pub fn envelope(&self, payload: &[u8]) -> String {
        let key = Value::from(self.field.key.as_str());
        let is_text = matches!(self.declared.as_deref(), Some("String" | "ID"));
        let text = || Value::from(String::from_utf8_lossy(payload)).to_string();
        let value = match self.field.fields.is_empty() {
            true if is_text => text(),
            // As it was written: no number loses a digit.
            true => serde_json::from_slice::<&RawValue>(payload).map_or_else(|_| text(), |raw| raw.get().to_owned()),
            false => event::value_of(payload)
                .map_or_else(text, |value| self.project(&value, &self.field.fields, true).to_string()),
        };
        format!(r#"{{"data":{{{key}:{value}}}}}"#)
    }

    fn project(&self, value: &Value, fields: &[Field], is_root: bool) -> Value {
        match value {
            _ if fields.is_empty() => value.clone(),
            Value::Array(items) => items.iter().map(|item| self.project(item, fields, is_root)).collect(),
            Value::Object(members) => {
                let member = |field: &Field| {
                    let found = members.get(&field.name).map(|value| self.project(value, &field.fields, false));
                    let declared = || self.declared.clone().filter(|_| is_root && field.name == "__typename");
                    (field.key.clone(), found.unwrap_or_else(|| declared().into()))
                };
                Value::Object(fields.iter().map(member).collect::<Map<_, _>>())
            }
            scalar => scalar.clone(),
        }
    }
}

/// `{"errors":[{"message":…}]}`.
pub fn errors(message: &str) -> String {
    serde_json::json!({ "errors": [{ "message": message }] }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::document::{Request, read};

    #[test]
    fn what_a_schema_declares() {
        for (sdl, declared_type) in [
            ("type Subscription { live: String }", Some("String")),
            ("type Subscription { live: String! other: Int }", Some("String")),
            ("type Subscription { live(room: ID!): [Message!]! } type Message { id: ID }", Some("Message")),
            ("live: String", Some("String")),
            ("live(room: ID): Message", Some("Message")),
            ("schema { subscription: S } type S { live: Int }", Some("Int")),
            ("extend type Subscription { live: ID }", Some("ID")),
            ("type Subscription { other: String }", None),
        ] {
            assert_eq!(declared(sdl, "live").expect(sdl).as_deref(), declared_type, "{sdl}");
        }
        for bad in ["type Subscription {", "live", "{{", "type Subscription { live }"] {
            assert!(declared(bad, "live").is_err(), "{bad}");
        }
    }

    #[test]
    fn payloads_are_projected_leniently() {
        for (query, declared, payload, expected) in [
            ("{ live }", "String", r#"{"a":1}"#, r#"{"data":{"live":"{\"a\":1}"}}"#),
            ("{ live }", "String!", "hi", r#"{"data":{"live":"hi"}}"#),
            ("{ live }", "Message", r#"{"a": 1.50}"#, r#"{"data":{"live":{"a": 1.50}}}"#),
            ("{ live }", "Int", "12345678901234567890123", r#"{"data":{"live":12345678901234567890123}}"#),
            ("{ live }", "Message", "not json", r#"{"data":{"live":"not json"}}"#),
            ("{ mine: live }", "String", "hi", r#"{"data":{"mine":"hi"}}"#),
            (
                "{ live { id text } }",
                "String",
                r#"{"text":"x","id":1,"more":2}"#,
                r#"{"data":{"live":{"id":1,"text":"x"}}}"#,
            ),
            ("{ live { id no } }", "String", r#"{"id":null}"#, r#"{"data":{"live":{"id":null,"no":null}}}"#),
            ("{ live { n: id } }", "M", r#"[{"id":1},{"id":2},5]"#, r#"{"data":{"live":[{"n":1},{"n":2},5]}}"#),
            ("{ live { a { b } } }", "M", r#"{"a":{"b":{"c":1},"d":2}}"#, r#"{"data":{"live":{"a":{"b":{"c":1}}}}}"#),
            (
                "{ live { __typename a { __typename } } }",
                "M",
                r#"{"a":{}}"#,
                r#"{"data":{"live":{"__typename":"M","a":{"__typename":null}}}}"#,
            ),
            ("{ live { id } }", "String", "plain", r#"{"data":{"live":"plain"}}"#),
            ("{ live { id } }", "M", "5", r#"{"data":{"live":5}}"#),
        ] {
            let request = Request { query: format!("subscription {query}"), ..Request::default() };
            let field = read(&request).expect(query).field;
            let declared = super::declared(&format!("live: {declared}"), "live").expect("a schema");
            assert_eq!(Shape { field, declared }.envelope(payload.as_bytes()), expected, "{query} {payload}");
        }
    }
}
