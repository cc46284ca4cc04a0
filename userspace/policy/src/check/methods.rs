//! The schema's methods and services by the names that policies give them.

use crate::suggest::did_you_mean;
use crate::table::{KeyType, service_number};
use std::collections::{BTreeMap, HashMap};
use tollfree_schema::{Manifest, Method};

/// The methods of a schema.
pub(super) struct Methods<'a> {
    /// With their services' full names, in the schema's order.
    all: Vec<(&'a str, &'a Method)>,
    by_name: HashMap<&'a str, Vec<usize>>,
}

/// Why a name stands for no method or service.
pub(super) struct NoMethod {
    pub message: String,
    pub help: Option<String>,
}

impl<'a> Methods<'a> {
    pub(super) fn new(schema: &'a Manifest) -> Methods<'a> {
        let services = schema.services.iter();
        let all: Vec<(&str, &Method)> = services
            .flat_map(|service| service.methods.iter().map(|method| (service.name.as_str(), method)))
            .collect();
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, (_, method)) in all.iter().enumerate() {
            by_name.entry(&method.name).or_default().push(at);
        }
        Methods { all, by_name }
    }

    /// Those of some ids, or all.
    pub(super) fn within(&self, ids: Option<&[u32]>) -> impl Iterator<Item = &'a Method> {
        self.all
            .iter()
            .map(|(_, method)| *method)
            .filter(move |method| ids.is_none_or(|ids| ids.binary_search(&method.id).is_ok()))
    }

    /// What a scope says, as ids: a service, a method by its path or a name of its own, or what they start with.
    pub(super) fn scope(&self, written: &str) -> Result<Vec<u32>, NoMethod> {
        let wanted = written.trim_start_matches('/');
        let found: Vec<u32> = match wanted.strip_suffix('*') {
            Some(prefix) => self.starting_with(prefix),
            None => {
                let of_service = |name: &str| name == wanted || short(name) == wanted;
                let service: Vec<u32> = self
                    .all
                    .iter()
                    .filter(|(name, _)| of_service(name))
                    .map(|(_, method)| method.id)
                    .collect();
                if service.is_empty() { vec![self.one(wanted)?] } else { service }
            }
        };
        if found.is_empty() {
            return Err(self.unknown(written, true));
        }
        Ok(found)
    }

    /// The method of a path or of a name that only one has.
    fn one(&self, written: &str) -> Result<u32, NoMethod> {
        match self.named(written)?.as_slice() {
            [only] => Ok(*only),
            several => {
                let paths = self.all.iter().map(|(_, method)| *method).filter(|m| several.contains(&m.id));
                let paths: Vec<&str> = paths.map(|method| method.path.trim_start_matches('/')).collect();
                Err(NoMethod {
                    message: format!("`{written}` is a method of several services"),
                    help: Some(format!("write which: '{}'", paths.join("' or '"))),
                })
            }
        }
    }

    /// The methods of a path, or of a name: at least one.
    pub(super) fn named(&self, written: &str) -> Result<Vec<u32>, NoMethod> {
        let wanted = written.trim_start_matches('/');
        if let Some((service, name)) = wanted.split_once('/') {
            let candidates =
                self.by_name.get(name).map_or(&[][..], Vec::as_slice).iter().map(|at| self.all[*at]);
            let of = |matches: &dyn Fn(&str) -> bool| {
                let found = candidates.clone().filter(|(known, _)| matches(known));
                found.map(|(_, method)| method.id).collect::<Vec<u32>>()
            };
            let full = of(&|known| known == service);
            let found = if full.is_empty() { of(&|known| short(known) == service) } else { full };
            return if found.is_empty() { Err(self.unknown(written, false)) } else { Ok(found) };
        }
        match self.by_name.get(wanted) {
            Some(places) => Ok(places.iter().map(|at| self.all[*at].1.id).collect()),
            None => Err(self.unknown(written, false)),
        }
    }

    /// The methods whose paths or names start so.
    pub(super) fn starting_with(&self, prefix: &str) -> Vec<u32> {
        let prefix = prefix.trim_start_matches('/');
        let starts = |method: &Method| {
            method.path.trim_start_matches('/').starts_with(prefix) || method.name.starts_with(prefix)
        };
        self.all.iter().filter(|(_, method)| starts(method)).map(|(_, method)| method.id).collect()
    }

    /// The number of a service, by its full name or a last part that only one has.
    pub(super) fn service(&self, written: &str) -> Result<u32, NoMethod> {
        let mut named: Vec<&str> =
            self.services().filter(|name| *name == written || short(name) == written).collect();
        if named.contains(&written) {
            named = vec![written];
        }
        match named.as_slice() {
            [only] => Ok(service_number(only)),
            [] => Err(NoMethod {
                message: format!("the schema has no service `{written}`"),
                help: did_you_mean(written, "its services are", self.services().collect::<Vec<_>>()),
            }),
            several => Err(NoMethod {
                message: format!("`{written}` is a service of several packages"),
                help: Some(format!("write which: '{}'", several.join("' or '"))),
            }),
        }
    }

    pub(super) fn services_starting_with(&self, prefix: &str) -> Vec<u32> {
        self.services().filter(|name| name.starts_with(prefix)).map(service_number).collect()
    }

    /// The full names, each once.
    pub(super) fn services(&self) -> impl Iterator<Item = &'a str> {
        let mut last = None;
        self.all.iter().map(|(service, _)| *service).filter(move |name| last.replace(*name) != Some(*name))
    }

    /// The number of the service of each method of some ids, or of all.
    pub(super) fn services_within(&self, ids: Option<&[u32]>) -> BTreeMap<&'a str, u32> {
        let covered = |id: u32| ids.is_none_or(|ids| ids.binary_search(&id).is_ok());
        let covered = self.all.iter().filter(|(_, method)| covered(method.id));
        covered.map(|(service, _)| (*service, service_number(service))).collect()
    }

    /// What a method is called where a name alone must do: its name, or its path where others have that too.
    pub(super) fn label(&self, method: &'a Method) -> &'a str {
        match self.by_name.get(method.name.as_str()).map_or(0, Vec::len) {
            1 => &method.name,
            _ => method.path.trim_start_matches('/'),
        }
    }

    /// The type of a table's key that is a method.
    pub(super) fn method_key(&self) -> KeyType {
        let methods = self.all.iter();
        let values = methods.map(|(_, method)| (self.label(method).to_owned(), method.id as i32)).collect();
        KeyType::Enum { values }
    }

    /// The type of a table's key that is a service.
    pub(super) fn service_key(&self) -> KeyType {
        let values = self.services().map(|name| (name.to_owned(), service_number(name) as i32)).collect();
        KeyType::Enum { values }
    }

    fn unknown(&self, written: &str, services: bool) -> NoMethod {
        let methods = self.all.iter().map(|(_, method)| self.label(method));
        let mut known: Vec<&str> = methods.collect();
        if services {
            known.extend(self.services());
        }
        let what = if services { "method or service" } else { "method" };
        NoMethod {
            message: format!("the schema has no {what} `{written}`"),
            help: did_you_mean(written, "there are", known),
        }
    }
}

/// The last part of a service's full name.
fn short(service: &str) -> &str {
    service.rsplit('.').next().unwrap_or(service)
}
