//! From a policy's typed form to the engine's steps.

mod matches;
mod operations;
mod tidy;

use super::code::{Code, Group, Handler, Layouts, List, Method, Source, Step, Stop};
use super::program::SLOTS_MAX;
use super::shape::{Place, Shape};
use super::tables::words_of;
use crate::ir::{self, Action, Body, Effect, Exit, FieldRef, FieldUse, Policy, Statement};
use crate::table::{KeyType, TableSpec};
use std::collections::HashMap;

/// Registers of operands that have to be loaded: a statement needs up to three at a time, and each of the matches around it,
/// fewer than the 32 levels that the parser lets through, has the one that it is about.
const LOADS_MAX: usize = 64;
/// The longest text that a field or a table can have, in bytes.
const TEXT_MAX: usize = 255;

/// The steps of a policy. Tables of `shared` note their writes.
pub fn compile(policy: &Policy, groups: &[ir::Group], shared: &[usize]) -> Code {
    let Policy {
        side: _,
        elements,
        tables,
        fields,
        response_fields,
        peer_names,
        metadata,
        selectors,
        authorisers,
        keys,
    } = policy;
    let are_texts = |fields: &[FieldUse]| fields.iter().map(|field| !is_number(&field.kind)).collect();
    let mut compiler = Compiler {
        tables,
        text_fields: are_texts(fields),
        text_response_fields: are_texts(response_fields),
        text_slots: [false; SLOTS_MAX],
        truth_slots: [false; SLOTS_MAX],
        constants: HashMap::new(),
        loads: 0,
        code: Code::default(),
        arena: 0,
        in_response: false,
    };
    let elements: Vec<Element> = elements.iter().map(|element| compiler.element(element)).collect();
    let Compiler { mut code, .. } = compiler;
    tidy::tidy(&mut code);
    code.sizes.key = tables.iter().map(|spec| words_of(&Shape::of_key(&spec.key))).max().unwrap_or(0);
    code.specs = tables.clone().into();
    code.shared = shared.to_vec();
    code.peer_names = peer_names.clone();
    code.metadata = metadata.clone();
    code.selectors = selectors.clone();
    code.authorisers = authorisers.clone();
    code.keys = keys.clone();
    code.groups = groups.iter().map(|group| group_of(group, &elements)).collect();
    code.methods = (0..)
        .zip(groups)
        .flat_map(|(number, group)| group.methods.iter().map(move |method| method_of(method, number)))
        .collect();
    code.methods.sort_by_key(|method| method.id);
    code
}

fn method_of(method: &ir::MethodLayouts, group: u32) -> Method {
    let layouts = |usual: u32, fingerprints: &[u32]| {
        let mut all = fingerprints.to_vec();
        all.sort_unstable();
        Layouts { usual, all }
    };
    Method {
        id: method.id,
        group,
        request: layouts(method.current, &method.fingerprints),
        response: layouts(method.current_response, &method.response_fingerprints),
    }
}

fn group_of(group: &ir::Group, elements: &[Element]) -> Group {
    let places = |fields: &[Option<ir::FieldAt>]| {
        fields.iter().map(|field| field.as_ref().and_then(Place::of)).collect::<Vec<_>>()
    };
    let stops = |handler: fn(&Element) -> Option<Handler>| {
        let covered = (0..).zip(elements).zip(&group.covered).filter(|(_, covered)| **covered);
        covered.filter_map(move |((element, it), _)| {
            Some(Stop { element, audit: it.audit, handler: handler(it)? })
        })
    };
    let mut responses: Vec<Stop> = stops(|element| element.response).collect();
    responses.reverse();
    Group {
        service: group.service,
        request: places(&group.fields),
        response: places(&group.response_fields),
        answer: group.response,
        requests: stops(|element| element.request).collect(),
        responses,
    }
}

#[derive(Clone, Copy)]
struct Element {
    audit: bool,
    request: Option<Handler>,
    response: Option<Handler>,
}

struct Compiler<'a> {
    tables: &'a [TableSpec],
    /// Which fields are no numbers.
    text_fields: Vec<bool>,
    text_response_fields: Vec<bool>,
    /// Which slots have no numbers at the moment.
    text_slots: [bool; SLOTS_MAX],
    /// Which have nothing but true and false.
    truth_slots: [bool; SLOTS_MAX],
    /// Where each constant is.
    constants: HashMap<u64, Source>,
    /// Registers in use for what is loaded.
    loads: usize,
    code: Code,
    /// Bytes of the arena that the handler at hand has taken.
    arena: usize,
    in_response: bool,
}

impl Compiler<'_> {
    fn element(&mut self, element: &ir::Element) -> Element {
        let ir::Element { name, span: _, methods: _, audit, request, response } = element;
        let request = request.as_ref().map(|body| match body {
            Body::SessionTracker(_) => Handler::SessionTracker,
            Body::Block(block) => Handler::Steps(self.handler(block)),
        });
        self.in_response = true;
        let response = response.as_ref().map(|block| Handler::Steps(self.handler(block)));
        self.in_response = false;
        self.code.uses.response |= response.is_some();
        self.code.names.push(name.clone());
        Element { audit: *audit, request, response }
    }

    fn handler(&mut self, block: &[Statement]) -> u32 {
        let start = self.here();
        self.arena = 0;
        self.block(block);
        // The checker lets a path end without an exit only where there is none at all. If another did, nothing would get
        // through.
        let ends = self.code.steps.iter().skip(start as usize).any(|step| {
            matches!(
                step,
                Step::Send | Step::Drop | Step::Reject { .. } | Step::Answer(_) | Step::Retry { .. }
            )
        });
        self.code.steps.push(if ends { Step::Drop } else { Step::Send });
        self.code.sizes.arena = self.code.sizes.arena.max(self.arena);
        start
    }

    fn here(&self) -> u32 {
        self.code.steps.len() as u32
    }

    fn block(&mut self, block: &[Statement]) {
        for statement in block {
            self.statement(&statement.action);
        }
    }

    fn statement(&mut self, action: &Action) {
        let loads = self.loads;
        self.act(action);
        self.loads = loads;
    }

    fn act(&mut self, action: &Action) {
        let step = match action {
            Action::Let { into, op } => self.keep(*into, op),
            Action::Match { subject, arms } => {
                if !self.branch(subject, arms) {
                    self.arms(subject, arms);
                }
                return;
            }
            Action::Set { table, key, value } => {
                Step::Set { table: narrow(*table), key: self.key(*table, key), value: self.source(value) }
            }
            Action::Delete { table, key } => {
                Step::Delete { table: narrow(*table), key: self.key(*table, key) }
            }
            Action::SetField { field, value } => {
                self.changes(*field);
                match value {
                    Some(value) => Step::SetField { field: *field, value: self.source(value) },
                    None => Step::ZeroField(*field),
                }
            }
            Action::Effect(effect) => self.effect(effect),
            Action::Exit(exit) => self.exit(exit),
        };
        self.code.steps.push(step);
    }

    fn effect(&mut self, effect: &Effect) -> Step {
        match effect {
            Effect::Delay(ns) => Step::Delay(self.number(ns)),
            Effect::Timeout(ns) => Step::Timeout(self.number(ns)),
            Effect::Route { selector, index } => Step::Route {
                selector: narrow(*selector),
                index: index.as_ref().map(|index| self.number(index)),
            },
            Effect::Mirror { selector } => Step::Mirror(narrow(*selector)),
            Effect::Eject { duration, max_ppm } => {
                Step::Eject { duration: self.number(duration), max_ppm: self.number(max_ppm) }
            }
            Effect::Log(values) => {
                self.code.uses.logs = true;
                let values: Vec<_> =
                    values.iter().map(|(value, kind)| (self.source(value), kind.clone())).collect();
                Step::Log(List::append(&mut self.code.logged, values))
            }
        }
    }

    fn exit(&mut self, exit: &Exit) -> Step {
        match exit {
            Exit::Send => Step::Send,
            Exit::Drop => Step::Drop,
            Exit::Reject(code, why) => {
                let why = why.as_ref().map(|why| {
                    self.code.whys.push(why.as_str().into());
                    self.code.whys.len() as u32 - 1
                });
                Step::Reject { code: *code, why }
            }
            Exit::Answer(fields) => {
                let fields: Vec<_> =
                    fields.iter().map(|(field, value)| (narrow(*field), self.source(value))).collect();
                Step::Answer(List::append(&mut self.code.answers, fields))
            }
            Exit::Retry { max, budget_ppm } => Step::Retry { max: *max, budget_ppm: *budget_ppm },
        }
    }

    fn changes(&mut self, field: FieldRef) {
        match field {
            FieldRef::Request(_) => self.code.uses.changes_request = true,
            FieldRef::Response(_) => self.code.uses.changes_response = true,
        }
    }
}

fn is_number(kind: &KeyType) -> bool {
    Shape::of_key(kind).first().is_some_and(|shape| shape.is_number())
}

/// A place in a list that a text of a policy can make: far below 65,536, which its length in bytes limits.
fn narrow(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}
