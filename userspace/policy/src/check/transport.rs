//! The transport block: which modules carry which method.

use crate::ast::{Call, Expression, ExpressionKind, Literal, Name, Transport, TransportArm};
use crate::diagnostics::Sink;
use crate::explain::MethodTransport;
use crate::notation;
use crate::suggest::did_you_mean;
use std::collections::HashMap;
use tollfree_schema::{Manifest, Method};
use tollfree_wire::spec::{Class, MethodSpec, SPECS_MAX, WINDOW_MAX};

/// The longest timeout: what a deadline on the wire can say, rounded down to what people write.
const TIMEOUT_MAX_US: u32 = 3_600_000_000;

/// What the block says per method of the schema, in the schema's order.
pub(super) fn check(block: &Transport, schema: &Manifest, sink: &mut Sink<'_>) -> Vec<MethodTransport> {
    let mut chosen: HashMap<u32, (&Name, Modules)> = HashMap::new();
    let mut others: Option<(&Name, Modules)> = None;
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
    let carried: Vec<MethodTransport> = schema
        .methods()
        .filter_map(|method| {
            let (_, Modules { names, spec }) = chosen.get(&method.id).or(others.as_ref())?;
            Some(MethodTransport {
                method: method.path.clone(),
                id: method.id,
                modules: names.clone(),
                spec: *spec,
            })
        })
        .collect();
    if carried.len() > SPECS_MAX {
        let message = format!(
            "the transport block speaks for {} methods; two hosts can agree on {SPECS_MAX}",
            carried.len()
        );
        sink.error(&block.span, message, "too many")
            .help("name only methods that are not to be reliable(): all others are");
    }
    carried
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

/// Reads `reliable() -> ordered() -> window(64)`. What cannot be is reported; what is left of it is returned.
fn check_modules(calls: &[Call], sink: &mut Sink<'_>) -> Modules {
    let mut modules = Modules::default();
    let mut seen: Vec<&Call> = Vec::new();
    for call in calls {
        let Call { name, arguments, named: _, span } = call;
        let Some(module) = Module::named(&name.text) else {
            let help = did_you_mean(&name.text, "the modules are", Module::ALL.map(Module::name));
            sink.error(&name.span, format!("no transport module is called `{}`", name.text), "unknown")
                .maybe_help(help);
            continue;
        };
        if let Some(first) = seen.iter().find(|other| other.name.text == name.text) {
            sink.error(span, format!("`{}` stands twice", name.text), "the second one")
                .related(&first.span, "the first one");
            continue;
        }
        if let Some(misplaced) = misplaced(module, &modules.spec, &seen) {
            let first = seen.first().map(|first| first.span.clone());
            let error = sink.error(span, misplaced.message, misplaced.label).help(misplaced.help);
            if let Some(first) = first {
                error.related(&first, "this is where it begins");
            }
        }
        seen.push(call);
        let spec = &mut modules.spec;
        match module {
            Module::Unreliable | Module::Reliable | Module::Ordered | Module::Checksum => {
                if let Some(argument) = arguments.first() {
                    sink.error(&argument.span, format!("`{}` takes no arguments", name.text), "one too many");
                }
            }
            Module::Timeout => spec.timeout_us = timeout(call, sink).unwrap_or(0),
            Module::Window => spec.window = window(call, sink).unwrap_or(0),
        }
        match module {
            Module::Unreliable => spec.class = Class::Unreliable,
            Module::Reliable => spec.class = Class::Reliable,
            Module::Ordered => spec.ordered = true,
            Module::Checksum => spec.checksum = true,
            Module::Timeout | Module::Window => {}
        }
        modules.names.push(match arguments.first().map(|argument| &argument.kind) {
            Some(ExpressionKind::Literal(Literal::Duration(ns))) => {
                format!("{}({})", module.name(), notation::format_duration(*ns))
            }
            Some(_) => format!("{}({})", module.name(), spec.window),
            None => module.name().to_owned(),
        });
    }
    modules
}

/// What an arm asks for: as text, module by module, and as the transport takes it.
#[derive(Clone, Default)]
struct Modules {
    names: Vec<String>,
    spec: MethodSpec,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Module {
    Unreliable,
    Reliable,
    Ordered,
    Checksum,
    Timeout,
    Window,
}

impl Module {
    const ALL: [Module; 6] = [
        Module::Unreliable,
        Module::Reliable,
        Module::Ordered,
        Module::Checksum,
        Module::Timeout,
        Module::Window,
    ];

    fn name(self) -> &'static str {
        match self {
            Module::Unreliable => "unreliable",
            Module::Reliable => "reliable",
            Module::Ordered => "ordered",
            Module::Checksum => "checksum",
            Module::Timeout => "timeout",
            Module::Window => "window",
        }
    }

    fn named(name: &str) -> Option<Module> {
        Module::ALL.into_iter().find(|module| module.name() == name)
    }
}

struct Misplaced {
    message: String,
    label: &'static str,
    help: &'static str,
}

/// Why a module cannot follow those before it, if it cannot.
fn misplaced(module: Module, before: &MethodSpec, seen: &[&Call]) -> Option<Misplaced> {
    let first = matches!(module, Module::Unreliable | Module::Reliable);
    let because = |reason: &str, label, help| {
        Some(Misplaced { message: format!("`{}` {reason}", module.name()), label, help })
    };
    match module {
        _ if first == seen.is_empty() && (first || before.is_reliable()) => None,
        _ if first => because(
            "cannot follow: a method is either reliable or unreliable, and that is said first",
            "one of the two is too many",
            "write unreliable() or reliable() once, then what refines it",
        ),
        _ if seen.is_empty() => because(
            "refines a transport, and here is none yet",
            "nothing before it",
            "begin with unreliable() or reliable(), such as reliable() -> ordered()",
        ),
        Module::Ordered => because(
            "needs `reliable`: behind a request that is lost for good all later ones would wait",
            "not on an unreliable method",
            "write reliable() -> ordered()",
        ),
        Module::Window => because(
            "needs `reliable`: nobody tells the sender of an unreliable call what has arrived",
            "not on an unreliable method",
            "leave it out, or write reliable() -> window(...)",
        ),
        Module::Unreliable | Module::Reliable | Module::Checksum | Module::Timeout => None,
    }
}

/// The argument of `timeout(10s)`, in µs.
fn timeout(call: &Call, sink: &mut Sink<'_>) -> Option<u32> {
    let argument = only_argument(call, "timeout(10s)", sink)?;
    let ExpressionKind::Literal(Literal::Duration(ns)) = argument.kind else {
        sink.error(&argument.span, "`timeout` takes a time", "not a time with a unit")
            .help("times have a unit: 500us, 10ms, 10s, 5m, 1h");
        return None;
    };
    let us = ns / 1_000;
    match u32::try_from(us) {
        Ok(0) => {
            sink.error(
                &argument.span,
                "a timeout of less than 1us ends every call before it begins",
                "too short",
            )
            .help("leave `timeout` out for no limit");
            None
        }
        Ok(us) if us <= TIMEOUT_MAX_US => Some(us),
        _ => {
            sink.error(&argument.span, "a timeout is at most 1h", "too long")
                .help("leave `timeout` out for no limit");
            None
        }
    }
}

/// The argument of `window(64)`.
fn window(call: &Call, sink: &mut Sink<'_>) -> Option<u16> {
    let argument = only_argument(call, "window(64)", sink)?;
    match argument.kind {
        ExpressionKind::Literal(Literal::Number { negative: false, magnitude })
            if (1..=u64::from(WINDOW_MAX)).contains(&magnitude) =>
        {
            Some(magnitude as u16)
        }
        _ => {
            sink.error(
                &argument.span,
                format!("`window` takes a number of packets from 1 to {WINDOW_MAX}"),
                "not such a number",
            )
            .help("it bounds how many packets of one message are under way at once");
            None
        }
    }
}

fn only_argument<'a>(call: &'a Call, example: &str, sink: &mut Sink<'_>) -> Option<&'a Expression> {
    match call.arguments.as_slice() {
        [argument] => Some(argument),
        [] => {
            sink.error(&call.span, format!("`{}` needs an argument", call.name.text), "of how much?")
                .help(format!("write {example}"));
            None
        }
        [_, second, ..] => {
            sink.error(&second.span, format!("`{}` takes one argument", call.name.text), "one too many")
                .help(format!("write {example}"));
            None
        }
    }
}
