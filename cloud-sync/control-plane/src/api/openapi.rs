//! The API's description for programs: OpenAPI 3.1, kept by hand in `openapi.json`, and held against the router and real answers by tests (ADR 18).

use axum::http::header;
use axum::response::IntoResponse;

/// The document.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::DOCUMENT;

    /// Methods and paths of the router, as its source has them.
    fn served() -> BTreeSet<String> {
        let source = include_str!("mod.rs");
        let routes = source.split(".route(\"").skip(1);
        let mut served = BTreeSet::new();
        for route in routes {
            let (path, rest) = route.split_once('"').unwrap();
            let end = rest.find("\n        .").unwrap_or(rest.len());
            for method in ["get", "post", "put", "delete"] {
                if rest.get(..end).unwrap().contains(&format!("{method}(")) {
                    served.insert(format!("{method} {}", path.replace("{*", "{")));
                }
            }
        }
        served
    }

    #[test]
    fn it_describes_what_is_served_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let paths = document.get("paths").unwrap().as_object().unwrap();
        let methods = |(path, item): (&String, &Value)| {
            let item = item.as_object().unwrap();
            item.keys().map(|method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        let described: BTreeSet<String> = paths.iter().flat_map(methods).collect();
        let served = served();
        assert!(served.len() > 40, "{served:?}");
        assert_eq!(described.symmetric_difference(&served).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn what_it_refers_to_is_in_it_and_operations_have_names_of_their_own() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for reference in DOCUMENT.split("\"$ref\": \"#").skip(1) {
            let (pointer, _) = reference.split_once('"').unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let ids: Vec<&str> =
            DOCUMENT.split("\"operationId\": \"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        // Every parameter of a path is described.
        for (path, item) in document.get("paths").unwrap().as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                for name in path.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0) {
                    let parameters = operation.get("parameters").and_then(Value::as_array).unwrap();
                    let found = parameters.iter().any(|parameter| parameter.get("name").unwrap() == name);
                    assert!(found, "{method} {path}: {name}");
                }
            }
        }
    }
}
