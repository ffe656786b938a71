//! The JSON Schemas say what the parsers say: every key, every choice, every bound, and no other. The documents in
//! `tests/schemas` have every key that there is; what is changed in them must be refused by both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holm_tests::functions::repository;
use holm_tests::node::binary;
use serde_json::Value as Json;
use toml::Value;

/// A key that nobody has, and that is near to none.
const NOBODY: &str = "zzzzzzzzzzzz";

/// A text that is no name, no unit and none of any choice.
const NONSENSE: &str = "§ §";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Manifest,
    Agent,
    Cases,
}

impl Kind {
    fn schema_path(self) -> PathBuf {
        let name = match self {
            Self::Manifest => "manifest",
            Self::Agent => "agent",
            Self::Cases => "cases",
        };
        repository().join(format!("docs/reference/schemas/{name}.json"))
    }

    fn schema(self) -> Json {
        serde_json::from_str(&std::fs::read_to_string(self.schema_path()).unwrap()).unwrap()
    }

    /// What the parser says of a document, a problem a line.
    fn problems(self, text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let (program, arguments, code): (_, &[&str], _) = match self {
            Self::Manifest => {
                write("holm.toml", text);
                ("holm", &["build"], "manifest-wrong")
            }
            Self::Agent => {
                write("agent.toml", text);
                ("holmd", &["check-config", "--config", "agent.toml"], "config-wrong")
            }
            Self::Cases => {
                // Nothing is to run: a build that fails is the end, once the cases have been read.
                let manifest = sample("manifest.toml").replace("\"true\"", "\"false\"");
                write("holm.toml", &manifest);
                write("tests/cases.toml", text);
                ("holm", &["test"], "cases-wrong")
            }
        };
        let mut command = Command::new(binary(program));
        command.args(arguments).current_dir(folder.path()).env("NO_COLOR", "1").stdin(Stdio::null());
        let text = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
        let problems = text.lines().filter(|line| line.starts_with("  ") && !line.contains("  next:"));
        match text.contains(code) {
            true => problems.filter(|line| !line.contains("  more:")).map(|line| line.trim().to_owned()).collect(),
            false => Vec::new(),
        }
    }
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(repository().join("tests/schemas").join(name)).unwrap()
}

const SAMPLES: [(Kind, &str); 4] = [
    (Kind::Manifest, "manifest.toml"),
    (Kind::Agent, "agent.toml"),
    (Kind::Agent, "agent-external.toml"),
    (Kind::Cases, "cases.toml"),
];

/// What the schemas say of documents, all problems of each.
fn validate(documents: &[(Kind, Value)]) -> Vec<Vec<String>> {
    let script = repository().join("tests/schemas/validate.py");
    let mut child = Command::new(holm_tests::python_with("jsonschema"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<String> = documents
        .iter()
        .map(|(kind, document)| {
            serde_json::json!({ "schema": kind.schema_path(), "document": document }).to_string() + "\n"
        })
        .collect();
    let writer = std::thread::spawn(move || lines.iter().try_for_each(|line| stdin.write_all(line.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Vec<String>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), documents.len());
    found
}

/// A way into a document.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// As problems name it.
fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn at<'a>(document: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(document, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Index(index) => &mut value[*index],
    })
}

/// A place in a document, and what its schema says of it.
struct Place<'a> {
    path: Vec<Step>,
    /// Where in the schema.
    pointer: String,
    schema: &'a Json,
}

/// Through a reference.
fn resolve<'a>(root: &'a Json, schema: &'a Json, pointer: String) -> (&'a Json, String) {
    let target = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    match target {
        Some(target) => (root.pointer(target.trim_start_matches('#')).unwrap(), pointer),
        None => (schema, pointer),
    }
}

fn places<'a>(root: &'a Json, schema: &'a Json, pointer: String, value: &Value, path: Vec<Step>) -> Vec<Place<'a>> {
    let (schema, pointer) = resolve(root, schema, pointer);
    let mut found = vec![Place { path: path.clone(), pointer: pointer.clone(), schema }];
    let deeper = |step: Step| path.iter().cloned().chain([step]).collect::<Vec<_>>();
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let (below, pointer) = match &schema["properties"][key] {
                    Json::Null => (&schema["additionalProperties"], format!("{pointer}/additionalProperties")),
                    below => (below, format!("{pointer}/properties/{key}")),
                };
                // What is free to be anything has nothing to say.
                if below.is_object() {
                    found.extend(places(root, below, pointer, value, deeper(Step::Key(key.clone()))));
                }
            }
        }
        Value::Array(values) if schema["items"].is_object() => {
            for (index, value) in values.iter().enumerate() {
                let pointer = format!("{pointer}/items");
                found.extend(places(root, &schema["items"], pointer, value, deeper(Step::Index(index))));
            }
        }
        _ => {}
    }
    found
}

/// Every table of a schema whose keys are known.
fn tables(schema: &Json, pointer: String, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Some(properties) = schema["properties"].as_object() {
        found.insert(pointer.clone(), properties.keys().cloned().collect());
        for (key, below) in properties {
            tables(below, format!("{pointer}/properties/{key}"), found);
        }
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            tables(&schema[key], format!("{pointer}/{key}"), found);
        }
    }
}

fn document(name: &str) -> Value {
    Value::Table(sample(name).parse().unwrap())
}

#[test]
fn the_schemas_know_the_keys_that_the_parsers_know_and_no_others() {
    for kind in [Kind::Manifest, Kind::Agent, Kind::Cases] {
        let schema = kind.schema();
        let mut wanted = BTreeMap::new();
        tables(&schema, String::new(), &mut wanted);
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, name) in SAMPLES.iter().filter(|(of, _)| *of == kind) {
            let whole = document(name);
            let found = places(&schema, &schema, String::new(), &whole, Vec::new());
            let mut asked = whole.clone();
            let tables: Vec<&Place<'_>> = found.iter().filter(|place| place.schema["properties"].is_object()).collect();
            for place in &tables {
                let table = at(&mut asked, &place.path).as_table_mut().unwrap();
                table.insert(NOBODY.to_owned(), Value::Integer(1));
            }
            let problems = kind.problems(&toml::to_string(&asked).unwrap());
            for place in tables {
                let key = shown(&[&place.path[..], &[Step::Key(NOBODY.to_owned())]].concat());
                let told =
                    problems.iter().find_map(|line| line.split_once(&format!(": {key}: unknown key, known here: ")));
                let (_, words) = told.unwrap_or_else(|| panic!("{key} is not told: {problems:#?}"));
                known.entry(place.pointer.clone()).or_default().extend(words.split(", ").map(str::to_owned));
            }
        }
        for (pointer, keys) in &wanted {
            assert_eq!(known.get(pointer), Some(keys), "{kind:?}: what the parser and the schema know at {pointer:?}");
        }
        assert_eq!(known.len(), wanted.len());
    }
}

/// Values that are no good in a place, as its schema says.
fn wrong(schema: &Json) -> Vec<Value> {
    let is =
        |word: &str| schema["type"] == word || schema["type"].as_array().is_some_and(|all| all.contains(&word.into()));
    let nonsense = || Value::String(NONSENSE.to_owned());
    let mut values = Vec::new();
    match schema {
        _ if schema["enum"][0].is_number() => values.extend([Value::Float(0.1), nonsense()]),
        _ if schema["enum"].is_array() => values.extend([nonsense(), Value::Boolean(true)]),
        _ if !schema["const"].is_null() => values.push(Value::Integer(2)),
        _ if is("array") => values.push(Value::Integer(1)),
        _ if is("string") && is("number") => values.push(Value::Array(Vec::new())),
        _ if is("string") => {
            values.push(Value::Boolean(true));
            if !schema["pattern"].is_null()
                && schema["pattern"] != "\\S"
                && schema["pattern"] != "^[^/]*$"
                && schema["pattern"] != "^[^+#]*$"
            {
                values.push(nonsense());
            }
        }
        _ if is("boolean") || is("object") => values.push(nonsense()),
        _ if is("integer") || is("number") => values.push(nonsense()),
        _ => {}
    }
    let whole = |value: f64| if is("integer") { Value::Integer(value as i64) } else { Value::Float(value) };
    if let Some(low) = schema["minimum"].as_f64() {
        values.push(whole(low - 1.0));
    }
    if let Some(high) = schema["maximum"].as_f64().filter(|high| *high < 1e15) {
        values.push(whole(high + 1.0));
    }
    values
}

#[test]
fn what_a_schema_refuses_the_parser_refuses_too() {
    let mut asked = Vec::new();
    let mut choices = 0;
    for (kind, name) in SAMPLES {
        let (schema, whole) = (kind.schema(), document(name));
        assert_eq!(kind.problems(&sample(name)), Vec::<String>::new(), "{name}");
        asked.push((kind, whole.clone(), format!("{name} as it is"), true));
        for place in places(&schema, &schema, String::new(), &whole, Vec::new()).into_iter().skip(1) {
            for value in wrong(place.schema) {
                let mut changed = whole.clone();
                let what = format!("{name}: {} = {value}", shown(&place.path));
                let nonsense = value.as_str() == Some(NONSENSE);
                *at(&mut changed, &place.path) = value;
                let problems = kind.problems(&toml::to_string(&changed).unwrap());
                assert!(!problems.is_empty(), "the parser takes {what}");
                let told = problems.iter().find_map(|line| line.split_once("is not one of "));
                if let (Some(known), Some((_, words)), true) = (place.schema["enum"].as_array(), told, nonsense) {
                    let word = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.');
                    let told: BTreeSet<&str> = words.split(word).filter(|word| !word.is_empty()).collect();
                    let known: BTreeSet<&str> = known.iter().filter_map(Json::as_str).collect();
                    assert_eq!(told, known, "{what}");
                    choices += 1;
                }
                asked.push((kind, changed, what, false));
            }
        }
    }
    assert!(asked.len() > 250 && choices > 20, "{} {choices}", asked.len());
    let documents: Vec<_> = asked.iter().map(|(kind, document, ..)| (*kind, document.clone())).collect();
    for ((_, _, what, good), errors) in asked.iter().zip(validate(&documents)) {
        assert_eq!(errors.is_empty(), *good, "{what}: {errors:?}");
    }
}

/// Every file of this name below a folder.
fn below(folder: &Path, good: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "sdk" {
            below(&path, good, found);
        } else if good(&path) {
            found.push(path);
        }
    }
}

#[test]
fn what_is_shipped_is_good_by_its_schema_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let holm = |arguments: &[&str]| {
        let output = Command::new(binary("holm")).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed: Json = serde_json::from_str(&holm(&["new", "--list", "--json"])).unwrap();
    for template in listed["templates"].as_array().unwrap() {
        let name = template["name"].as_str().unwrap();
        holm(&["new", &format!("a-{name}"), "-t", name]);
    }
    let mut files = Vec::new();
    let toml = |path: &Path| path.extension().is_some_and(|end| end == "toml");
    let kind_of = |path: &Path| match path.file_name().and_then(|name| name.to_str()).unwrap() {
        "holm.toml" => Some(Kind::Manifest),
        "node.toml" | "agent.toml" => Some(Kind::Agent),
        _ if path.parent().unwrap().ends_with("tests") && toml(path) => Some(Kind::Cases),
        _ => None,
    };
    below(folder.path(), &|path| kind_of(path).is_some(), &mut files);
    // Where their cases run is not shipped.
    let made = |path: &Path| path.components().any(|part| part.as_os_str() == ".holm");
    below(&repository().join("functions/examples"), &|path| kind_of(path).is_some() && !made(path), &mut files);
    let packaged = repository().join("boards/packaging/agent.toml");
    files.push(packaged.clone());
    assert!(files.len() > 20, "{files:?}");
    let mut documents = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let kind = kind_of(file).unwrap();
        documents.push((kind, Value::Table(text.parse().unwrap())));
        let Some(named) = text.lines().next().and_then(|line| line.strip_prefix("#:schema ")) else {
            panic!("the first line of {} is no `#:schema`", file.display());
        };
        if *file != packaged {
            let schema = std::fs::read_to_string(file.parent().unwrap().join(named));
            let schema = schema.unwrap_or_else(|error| panic!("{} in {}: {error}", named, file.display()));
            assert!(schema == std::fs::read_to_string(kind.schema_path()).unwrap(), "{}", file.display());
        }
    }
    for (file, errors) in files.iter().zip(validate(&documents)) {
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
    }
    assert_eq!(holm(&["schema", "agent"]), std::fs::read_to_string(Kind::Agent.schema_path()).unwrap());
}
