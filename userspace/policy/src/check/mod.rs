//! From what was written to what it means: resolves names, gives tables and values their types, and makes sure that
//! every path through an element ends. Reports everything that is wrong, not only the first thing.

mod chains;
mod changes;
mod constants;
mod coverage;
mod declared;
mod effects;
mod exits;
mod expressions;
mod fields;
mod frame;
mod functions;
mod infer;
mod kind;
mod messages;
mod methods;
mod operators;
mod patterns;
mod slots;
mod state;
mod statements;
mod tables;
mod transport;
mod uses;
mod walk;

pub(crate) use chains::{Target, sides};

use crate::ast::{Element, Expression, ExpressionKind, File, Name};
use crate::diagnostics::Sink;
use crate::explain::MethodTransport;
use crate::ir::{self, Action, Body, FieldUse, Policy};
use crate::table::KeyType;
use chains::BUILTIN;
use fields::Message;
use frame::Frame;
use kind::{Kind, Names};
use methods::Methods;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tables::Table;
use tollfree_schema::Manifest;
use tollfree_wire::Code;
use uses::{Uses, Walker};

/// A policy without mistakes.
pub(crate) struct Checked {
    pub policy: Policy,
    pub transport: Vec<MethodTransport>,
    /// What a reader might not expect.
    pub notes: Vec<String>,
}

/// Checks a policy; what it returns means nothing if mistakes were reported.
pub(crate) fn check(file: &File, schema: &Manifest, target: Target<'_>, sink: &mut Sink<'_>) -> Checked {
    let methods = Methods::new(schema);
    let uses = table_uses(file, &methods);
    let tables = tables::resolve(file, &uses, &methods, sink);
    let table_names = tables.iter().enumerate().map(|(at, table)| (table.spec.name.clone(), at)).collect();
    let codes = Code::ALL.iter().map(|code| (code.name().to_owned(), *code as i32)).collect();
    let mut checker = Checker {
        methods,
        tables,
        table_names,
        element_names: file.elements.iter().map(|element| element.name.text.clone()).collect(),
        codes: Names::new(codes, true),
        uses: Mentioned::default(),
        known_fields: HashMap::new(),
        used: HashSet::new(),
        frame: Frame::default(),
        out: Vec::new(),
        notes: Vec::new(),
        quiet: false,
        sink,
    };
    checker.names(file);
    let (side, mut elements) = checker.chains(file, target);
    let transport = match &file.transport {
        Some(block) => transport::check(block, schema, checker.sink),
        None => Vec::new(),
    };
    let Checker { tables, uses: mentioned, notes, .. } = checker;
    let tables = wanted_tables(tables, &uses, &mut elements);
    let Mentioned { fields, response_fields, peer_names, metadata, selectors, authorisers, keys } = mentioned;
    let policy = Policy {
        side,
        elements,
        tables,
        fields,
        response_fields,
        peer_names,
        metadata,
        selectors,
        authorisers,
        keys,
    };
    Checked { policy, transport, notes }
}

/// What elements do with tables, by their uses in chains.
fn table_uses(file: &File, methods: &Methods<'_>) -> Uses {
    let defined: HashMap<&str, &Element> =
        file.elements.iter().map(|element| (element.name.text.as_str(), element)).collect();
    let mut walker = Walker::new(methods);
    let mut used = HashSet::new();
    for (at, chain) in file.chains.iter().enumerate().take(chains::USES_MAX) {
        let ids = chain.scope.iter().filter_map(|path| methods.scope(&path.text).ok()).flatten();
        let mut ids: Vec<u32> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let ids = (!chain.scope.is_empty()).then(|| ids.into());
        for call in chain.calls.iter().take(chains::USES_MAX) {
            if let Some(element) = defined.get(call.name.text.as_str()) {
                used.insert(element.name.text.as_str());
                walker.element(element, chains::given(element, call), at, Clone::clone(&ids));
            }
        }
    }
    for element in &file.elements {
        if !used.contains(element.name.text.as_str()) {
            walker.element(element, chains::defaults(element), file.chains.len(), None);
        }
    }
    walker.finish()
}

/// Leaves out the tables that only chains for another side or interface use, and renumbers the rest.
fn wanted_tables(
    tables: Vec<Table>,
    uses: &Uses,
    elements: &mut [ir::Element],
) -> Vec<crate::table::TableSpec> {
    let mut wanted = HashSet::new();
    for element in &mut *elements {
        handlers(element, &mut |action| wanted.extend(walk::table(action).copied()));
    }
    let mut places = HashMap::new();
    let mut kept = Vec::new();
    for (at, Table { spec, .. }) in tables.into_iter().enumerate() {
        if wanted.contains(&at) || uses.of(&spec.name).is_none() {
            places.insert(at, kept.len());
            kept.push(spec);
        }
    }
    for element in elements {
        handlers(element, &mut |action| {
            if let Some(table) = walk::table(action) {
                *table = places.get(table).copied().unwrap_or(*table);
            }
        });
    }
    kept
}

/// Every action of an element.
fn handlers(element: &mut ir::Element, see: &mut dyn FnMut(&mut Action)) {
    if let Some(Body::Block(block)) = &mut element.request {
        walk::actions(block, see);
    }
    if let Some(block) = &mut element.response {
        walk::actions(block, see);
    }
}

/// What elements mention, each thing once.
#[derive(Default)]
struct Mentioned {
    fields: Vec<FieldUse>,
    response_fields: Vec<FieldUse>,
    peer_names: Vec<String>,
    metadata: Vec<String>,
    selectors: Vec<String>,
    authorisers: Vec<String>,
    keys: Vec<String>,
}

/// What is known while the elements are checked.
struct Checker<'a, 's, 'd> {
    methods: Methods<'a>,
    tables: Vec<Table>,
    table_names: HashMap<String, usize>,
    element_names: HashSet<String>,
    /// The values of `status`.
    codes: Arc<Names>,
    uses: Mentioned,
    /// Places in [`Mentioned`], by chain, message and name.
    known_fields: HashMap<(usize, Message, String), (usize, Kind)>,
    /// The elements that chains use.
    used: HashSet<String>,
    frame: Frame,
    /// The statements of the block at hand.
    out: Vec<ir::Statement>,
    notes: Vec<String>,
    /// What is checked does not become part of the policy: notes on it are of no interest.
    quiet: bool,
    sink: &'s mut Sink<'d>,
}

impl Checker<'_, '_, '_> {
    /// Names of elements and parameters are used once.
    fn names(&mut self, file: &File) {
        let mut first: HashMap<&str, &Name> = HashMap::new();
        for element in &file.elements {
            let Name { text, span } = &element.name;
            if text == BUILTIN {
                self.sink
                    .error(span, format!("`{BUILTIN}` is built in"), "defined again here")
                    .help("give the element another name");
            }
            match first.get(text.as_str()) {
                Some(known) => {
                    self.sink
                        .error(span, format!("element `{text}` is defined twice"), "the second one")
                        .related(&known.span, "the first one");
                }
                None => {
                    first.insert(text, &element.name);
                }
            }
            if self.table_names.contains_key(text) {
                self.sink
                    .error(span, format!("`{text}` is a table"), "has a meaning already")
                    .help("choose another name");
            }
            self.frame = Frame::default();
            let mut known: HashMap<&str, &Name> = HashMap::new();
            for parameter in &element.parameters {
                self.check_new_name(&parameter.name.text, &parameter.name.span);
                if let Some(first) = known.insert(&parameter.name.text, &parameter.name) {
                    let message = format!("parameter `{}` stands twice", first.text);
                    self.sink
                        .error(&parameter.name.span, message, "the second one")
                        .related(&first.span, "the first one");
                }
            }
        }
    }

    fn note(&mut self, note: String) {
        if !self.quiet && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A value's type as logs and keys of tables have it.
    fn key_type(&self, kind: &Kind) -> KeyType {
        tables::key_type(kind, &self.methods)
    }
}

fn is_name(expression: &Expression, name: &str) -> bool {
    matches!(&expression.kind, ExpressionKind::Name(text) if text == name)
}
