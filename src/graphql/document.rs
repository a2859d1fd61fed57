//! What a client asks for: one subscription, out of a GraphQL document.
//!
//! Leniently: nothing is held against a schema but the name of the one root field. What is selected below it is taken
//! from the payload, whatever that is.

use graphql_parser::query::{
    self, Definition, Directive, OperationDefinition, Selection, SelectionSet, Subscription, Value as Literal,
    parse_query,
};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Characters of a document.
const MAX_DOCUMENT: usize = 100_000;
/// Fields that one document may select, fragments spread.
const MAX_FIELDS: usize = 1000;
/// How deep, fragments spread.
const MAX_DEPTH: usize = 50;

/// A request, however it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The document.
    pub query: String,
    /// By name.
    pub variables: Map<String, Value>,
    /// Which of the document's operations.
    pub operation_name: Option<String>,
    /// What the client calls it where several share a stream.
    pub operation_id: Option<String>,
}

impl Request {
    /// From `{query, variables?, operationName?, extensions?}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(body: &Value) -> Result<Self, String> {
        let member = |name: &str| body.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match member(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{name} is not a string")),
        };
        let variables = match member("variables") {
            None => Map::new(),
            Some(Value::Object(variables)) => variables.clone(),
            Some(_) => return Err("variables is not an object".into()),
        };
        let id = member("extensions").and_then(|extensions| extensions.get("operationId")?.as_str());
        Ok(Request {
            query: text("query")?.ok_or("query is missing")?,
            variables,
            operation_name: text("operationName")?,
            operation_id: id.map(String::from),
        })
    }

    /// From a URL's parameters; `None` without `query`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_params(params: &HashMap<String, String>) -> Result<Option<Self>, String> {
        let json = |name: &str| match params.get(name).filter(|text| !text.is_empty()) {
            None => Ok(Value::Null),
            Some(text) => serde_json::from_str(text).map_err(|why| format!("{name} is not JSON: {why}")),
        };
        let Some(query) = params.get("query") else { return Ok(None) };
        let mut body = Map::new();
        body.insert("query".into(), query.clone().into());
        body.insert("variables".into(), json("variables")?);
        body.insert("operationName".into(), params.get("operationName").cloned().into());
        body.insert("extensions".into(), json("extensions")?);
        Request::from_json(&body.into()).map(Some)
    }
}

/// A field, and what is selected below it; with nothing there, all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// What it is called in the answer.
    pub key: String,
    /// What it is called in the payload.
    pub name: String,
    /// Below it.
    pub fields: Vec<Field>,
}

/// The subscription that a document asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The root field.
    pub field: Field,
    /// Its arguments.
    pub args: Map<String, Value>,
}

/// Whether the document's operation is a subscription, as far as it can be read.
pub fn is_subscription(request: &Request) -> bool {
    parsed(request).is_ok_and(|document| operation(&document, request).is_ok())
}

/// Reads the document.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn read(request: &Request) -> Result<Asked, String> {
    let document = parsed(request)?;
    let operation = operation(&document, request)?;
    let fragments = document.definitions.iter().filter_map(|definition| match definition {
        Definition::Fragment(fragment) => Some((fragment.name.as_str(), &fragment.selection_set)),
        Definition::Operation(_) => None,
    });
    let mut variables = request.variables.clone();
    for definition in &operation.variable_definitions {
        let default = definition.default_value.as_ref().and_then(|literal| value(literal, &Map::new()));
        if let Some(default) = default.filter(|_| !variables.contains_key(&definition.name)) {
            variables.insert(definition.name.clone(), default);
        }
    }
    let mut reader = Reader { fragments: fragments.collect(), variables: &variables, left: MAX_FIELDS };
    let roots = reader.flatten(&operation.selection_set, 0)?;
    let [root, others @ ..] = &roots[..] else { return Err("the subscription selects no field".into()) };
    if others.iter().any(|other| key_of(other) != key_of(root)) {
        return Err("a subscription has one root field".into());
    }
    let args = root.arguments.iter().filter_map(|(name, literal)| Some((name.clone(), value(literal, &variables)?)));
    let args = args.collect();
    let sets: Vec<_> = roots.iter().map(|root| &root.selection_set).collect();
    let fields = reader.select(&sets, 1)?;
    Ok(Asked { field: Field { key: key_of(root).into(), name: root.name.clone(), fields }, args })
}

fn parsed(request: &Request) -> Result<query::Document<'static, String>, String> {
    if request.query.len() > MAX_DOCUMENT {
        return Err(format!("the document is longer than {MAX_DOCUMENT} bytes"));
    }
    let parsed = parse_query::<String>(&request.query).map(query::Document::into_static);
    parsed.map_err(|why| why.to_string().trim().replace('\n', " "))
}

fn operation<'d>(
    document: &'d query::Document<'static, String>,
    request: &Request,
) -> Result<&'d Subscription<'static, String>, String> {
    let operations = document.definitions.iter().filter_map(|definition| match definition {
        Definition::Operation(operation) => Some(operation),
        Definition::Fragment(_) => None,
    });
    let name = request.operation_name.as_deref().filter(|name| !name.is_empty());
    let mut fitting = operations.filter(|operation| name.is_none() || name_of(operation) == name);
    match (fitting.next(), fitting.next()) {
        (None, _) => Err("the document has no such operation".into()),
        (Some(_), Some(_)) => Err("the document has several operations: say operationName".into()),
        (Some(OperationDefinition::Subscription(subscription)), None) => Ok(subscription),
        (Some(_), None) => Err("only subscriptions are served here".into()),
    }
}

fn name_of<'d>(operation: &'d OperationDefinition<'static, String>) -> Option<&'d str> {
    match operation {
        OperationDefinition::SelectionSet(_) => None,
        OperationDefinition::Query(query) => query.name.as_deref(),
        OperationDefinition::Mutation(mutation) => mutation.name.as_deref(),
        OperationDefinition::Subscription(subscription) => subscription.name.as_deref(),
    }
}

fn key_of(field: &Picked) -> &str {
    field.alias.as_ref().unwrap_or(&field.name)
}

type Set = SelectionSet<'static, String>;
type Picked = query::Field<'static, String>;

struct Reader<'d> {
    fragments: HashMap<&'d str, &'d Set>,
    variables: &'d Map<String, Value>,
    /// Fields that may still be selected: fragments can multiply.
    left: usize,
}

impl<'d> Reader<'d> {
    /// The fields of a set, with those of its fragments.
    fn flatten(&mut self, set: &'d Set, depth: usize) -> Result<Vec<&'d Picked>, String> {
        if depth > MAX_DEPTH {
            return Err("the selection is too deep".into());
        }
        let mut fields = Vec::new();
        for item in &set.items {
            self.left = self.left.checked_sub(1).ok_or("the selection is too large")?;
            let (directives, inner) = match item {
                Selection::Field(field) => (&field.directives, None),
                Selection::InlineFragment(fragment) => (&fragment.directives, Some(&fragment.selection_set)),
                Selection::FragmentSpread(spread) => {
                    let unknown = || format!("there is no fragment {}", spread.fragment_name);
                    let set = self.fragments.get(spread.fragment_name.as_str()).copied();
                    (&spread.directives, Some(set.ok_or_else(unknown)?))
                }
            };
            if !self.includes(directives) {
                continue;
            }
            match (item, inner) {
                (Selection::Field(field), _) => fields.push(field),
                (_, Some(inner)) => fields.extend(self.flatten(inner, depth + 1)?),
                (_, None) => {}
            }
        }
        Ok(fields)
    }

    /// What these sets select together: the same key twice is one field.
    fn select(&mut self, sets: &[&'d Set], depth: usize) -> Result<Vec<Field>, String> {
        let mut chosen: Vec<(&'d Picked, Vec<&'d Set>)> = Vec::new();
        for set in sets {
            for field in self.flatten(set, depth)? {
                match chosen.iter_mut().find(|(known, _)| key_of(known) == key_of(field)) {
                    Some((_, below)) => below.push(&field.selection_set),
                    None => chosen.push((field, vec![&field.selection_set])),
                }
            }
        }
        let field = |(field, below): (&'d Picked, Vec<_>)| {
            let fields = self.select(&below, depth + 1)?;
            Ok(Field { key: key_of(field).into(), name: field.name.clone(), fields })
        };
        chosen.into_iter().map(field).collect()
    }

    /// `@skip` and `@include`.
    fn includes(&self, directives: &[Directive<'static, String>]) -> bool {
        directives.iter().all(|directive| {
            let condition = directive.arguments.iter().find(|(name, _)| name == "if");
            let holds = condition.and_then(|(_, literal)| value(literal, self.variables)) == Some(true.into());
            match directive.name.as_str() {
                "include" => holds,
                "skip" => !holds,
                _ => true,
            }
        })
    }
}

/// `None` for a variable that has none.
fn value(literal: &Literal<'static, String>, variables: &Map<String, Value>) -> Option<Value> {
    Some(match literal {
        Literal::Variable(name) => variables.get(name)?.clone(),
        Literal::Int(number) => number.as_i64().into(),
        Literal::Float(number) => (*number).into(),
        Literal::String(text) => text.clone().into(),
        Literal::Boolean(flag) => (*flag).into(),
        Literal::Null => Value::Null,
        Literal::Enum(name) => name.clone().into(),
        Literal::List(items) => {
            items.iter().map(|item| value(item, variables).unwrap_or_default()).collect::<Vec<_>>().into()
        }
        Literal::Object(members) => {
            let member = |(name, literal): (&String, _)| Some((name.clone(), value(literal, variables)?));
            members.iter().filter_map(member).collect::<Map<_, _>>().into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn asked(query: &str, variables: Value) -> Result<Asked, String> {
        read(&Request::from_json(&json!({ "query": query, "variables": variables }))?)
    }

    /// A selection as text: `key:name{…}`.
    fn told(fields: &[Field]) -> String {
        let one = |field: &Field| match field.fields.is_empty() {
            true => format!("{}:{}", field.key, field.name),
            false => format!("{}:{}{{{}}}", field.key, field.name, told(&field.fields)),
        };
        fields.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_document_says_one_field_and_what_is_below_it() {
        for (query, expected) in [
            ("subscription { live }", "live:live"),
            ("subscription Named($a: Int) { mine: live(a: $a) }", "mine:live"),
            ("subscription { live { id text { a b } } }", "live:live{id:id text:text{a:a b:b}}"),
            ("subscription { live { x: id ...F } } fragment F on T { text }", "live:live{x:id text:text}"),
            ("subscription { ... on Subscription { live { a { x } a { y } } } }", "live:live{a:a{x:x y:y}}"),
            ("subscription { live { a @skip(if: true) b @include(if: false) c @skip(if: false) } }", "live:live{c:c}"),
            ("{ q } subscription S { live { __typename } }", "live:live{__typename:__typename}"),
        ] {
            let name = if query.starts_with('{') { json!("S") } else { Value::Null };
            let request = Request::from_json(&json!({ "query": query, "operationName": name })).expect("a request");
            let asked = read(&request).expect(query);
            assert_eq!(told(&[asked.field]), expected, "{query}");
            assert!(is_subscription(&request));
        }
    }

    #[test]
    fn arguments_have_their_variables() {
        let query = r#"subscription($a: Int!, $b: String = "x", $c: Int) { live(a: $a, b: $b, c: $c, d: [1, 2.5, E], e: {f: null}) }"#;
        let asked = asked(query, json!({ "a": 5 })).expect("a subscription");
        assert_eq!(Value::from(asked.args), json!({"a": 5, "b": "x", "d": [1, 2.5, "E"], "e": {"f": null}}));
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        let many: String = (0..1001).map(|n| format!("f{n} ")).collect();
        let bomb: String = (0..40).map(|n| format!("fragment F{n} on T {{ ...F{m} ...F{m} }} ", m = n + 1)).collect();
        for bad in [
            "",
            "subscription {",
            "{ live }",
            "mutation { live }",
            "subscription { a b }",
            "subscription { live { ...Missing } }",
            "subscription { live { ...F } } fragment F on T { ...F }",
            "subscription A { a } subscription B { b }",
            &format!("subscription {{ live {{ {many} }} }}"),
            &format!("subscription {{ live {{ ...F0 }} }} {bomb} fragment F40 on T {{ x }}"),
            &format!("subscription {{ live {} }}", "{ a ".repeat(2000)),
            &format!("subscription {{ {} }}", "x".repeat(MAX_DOCUMENT)),
        ] {
            assert!(asked(bad, Value::Null).is_err(), "{:.60}", bad);
        }
        for bad in [json!({}), json!({"query": 5}), json!({"query": "x", "variables": []}), json!([])] {
            assert!(Request::from_json(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_breaks_it(query in "[a-b{}()!:$@.\"\\\\# \n0-9]{0,60}", words in "(subscription|fragment|on|a|b|\\{|\\}|\\(|\\)|\\.\\.\\.|@skip|\\$x|:|,| |1){0,40}") {
            for query in [query, words.clone(), format!("subscription {{ live {{ {words} }} }}")] {
                let _ = read(&Request { query: query.clone(), ..Request::default() });
                let _ = crate::graphql::shape::declared(&query, "live");
            }
        }
    }

    #[test]
    fn a_url_may_say_it_all() {
        let params = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(Request::from_params(&params(&[("user_id", "u1")])), Ok(None));
        let said = params(&[
            ("query", "subscription { a }"),
            ("variables", r#"{"x":1}"#),
            ("extensions", r#"{"operationId":"7"}"#),
        ]);
        let request = Request::from_params(&said).expect("good").expect("a query");
        assert_eq!((request.variables.len(), request.operation_id.as_deref()), (1, Some("7")));
        assert!(Request::from_params(&params(&[("query", "x"), ("variables", "{")])).is_err());
    }
}
