//! The transport block: which modules carry which method.

use crate::ast::{Call, Name, Transport, TransportArm};
use crate::diagnostics::Sink;
use crate::explain::MethodTransport;
use crate::suggest::did_you_mean;
use std::collections::HashMap;
use tollfree_schema::{Manifest, Method};

const MODULES: [&str; 3] = ["unreliable", "reliable", "ordered"];

/// What the block says per method of the schema, in the schema's order.
pub(super) fn check(block: &Transport, schema: &Manifest, sink: &mut Sink<'_>) -> Vec<MethodTransport> {
    let mut chosen: HashMap<u32, (&Name, Vec<String>)> = HashMap::new();
    let mut others: Option<(&Name, Vec<String>)> = None;
    for TransportArm { methods, modules } in &block.arms {
        let modules = check_modules(modules, sink);
        for name in methods {
            if name.text == "_" {
                match &others {
                    None => others = Some((name, modules.clone())),
                    Some((first, _)) => {
                        sink.error(&name.span, "`_` stands twice", "the second one")
                            .related(&first.span, "the first one");
                    }
                }
                continue;
            }
            let found = named(schema, &name.text);
            if found.is_empty() {
                let known: Vec<&str> = schema.methods().map(|method| method.name.as_str()).collect();
                let help = did_you_mean(&name.text, "its methods are", known);
                sink.error(
                    &name.span,
                    format!("the schema has no method `{}`", name.text),
                    "not in the schema",
                )
                .maybe_help(help);
            }
            for method in found {
                match chosen.get(&method.id) {
                    None => {
                        chosen.insert(method.id, (name, modules.clone()));
                    }
                    Some((first, _)) => {
                        sink.error(
                            &name.span,
                            format!("{} has a transport already", method.path),
                            "the second one",
                        )
                        .related(&first.span, "the first one");
                    }
                }
            }
        }
    }
    schema
        .methods()
        .filter_map(|method| {
            let (_, modules) = chosen.get(&method.id).or(others.as_ref())?;
            Some(MethodTransport { method: method.path.clone(), id: method.id, modules: modules.clone() })
        })
        .collect()
}

/// The methods a name stands for: by path, by `Service.Method`, by name; and where none is written exactly so, by name
/// in any case, as `GET` for `Get`.
fn named<'a>(schema: &'a Manifest, name: &str) -> Vec<&'a Method> {
    let exact: Vec<&Method> = schema
        .methods()
        .filter(|method| {
            let dotted = method.path.trim_start_matches('/').replace('/', ".");
            method.name == name
                || method.path == name
                || dotted == name
                || dotted.ends_with(&format!(".{name}"))
        })
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    schema.methods().filter(|method| method.name.eq_ignore_ascii_case(name)).collect()
}

fn check_modules(calls: &[Call], sink: &mut Sink<'_>) -> Vec<String> {
    let mut modules: Vec<String> = Vec::new();
    for Call { name, arguments, span } in calls {
        if !MODULES.contains(&name.text.as_str()) {
            let help = did_you_mean(&name.text, "the modules are", MODULES);
            sink.error(&name.span, format!("no transport module is called `{}`", name.text), "unknown")
                .maybe_help(help);
        }
        if let Some(argument) = arguments.first() {
            sink.error(&argument.span, format!("`{}` takes no arguments", name.text), "one too many");
        }
        let misplaced = match name.text.as_str() {
            "ordered" => modules != ["reliable"],
            "reliable" | "unreliable" => !modules.is_empty(),
            _ => false,
        };
        if misplaced {
            sink.error(span, format!("`{}` cannot stand here", name.text), "in the wrong place")
                .help("the transports are unreliable(), reliable() and reliable() -> ordered()");
        }
        modules.push(name.text.clone());
    }
    modules
}
