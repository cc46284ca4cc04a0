//! How to reach each peer: a cache in front of a resolver thread.
//!
//! The polling thread never waits for the kernel's tables: an unknown peer is unreachable now, and a later attempt
//! finds what the resolver has learnt meanwhile. Who has just written to us can be answered at once, the way their
//! packet came; the resolver's word replaces that guess when it is there.

mod netlink;
mod resolver;

use crate::{
    Error,
    headers::{Path, Template},
};
pub use netlink::Link;
use resolver::Resolver;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tollfree_wire::frame::Peer;

/// Time between two attempts to resolve a peer that is unreachable.
const COOLDOWN: Duration = Duration::from_millis(500);
/// Age at which a resolved path in use is resolved again.
const REFRESH: Duration = Duration::from_secs(5);
/// Time between two removals of paths no longer used.
const SWEEP: Duration = Duration::from_secs(300);
/// Most peers remembered.
const CAPACITY: usize = 65_536;
/// Senders of recent packets remembered: a power of two, at least a receive batch.
const RECENT: usize = 64;

struct Entry {
    template: Option<Template>,
    /// Why the last resolution failed.
    problem: Option<String>,
    /// When to resolve next.
    due: Instant,
    resolving: bool,
    used: bool,
}

/// The cache.
pub struct Paths {
    entries: HashMap<Peer, Entry>,
    /// The peer of the last transmission: most often also of the next.
    memo: Option<(Peer, Template)>,
    recent: [Option<(Peer, Path)>; RECENT],
    recent_at: usize,
    resolver: Resolver,
    sweep: Instant,
}

impl Paths {
    /// A cache for packets through one interface. Its thread lives in the network namespace of the calling thread.
    pub fn new(interface: &str, index: u32) -> Result<Paths, Error> {
        Ok(Paths {
            entries: HashMap::new(),
            memo: None,
            recent: [None; RECENT],
            recent_at: 0,
            resolver: Resolver::start(interface, index)?,
            sweep: Instant::now() + SWEEP,
        })
    }

    /// The headers for packets to `peer`, if the way is known. If not, finding it out begins.
    pub fn lookup(&mut self, peer: &Peer) -> Option<&Template> {
        if self.memo.as_ref().is_none_or(|(memo, _)| memo != peer) {
            let template = self.find(peer)?;
            self.memo = Some((*peer, template));
        }
        self.memo.as_ref().map(|(_, template)| template)
    }

    fn find(&mut self, peer: &Peer) -> Option<Template> {
        if let Some(Entry { template: Some(template), used, .. }) = self.entries.get_mut(peer) {
            *used = true;
            return Some(*template);
        }
        self.collect();
        let now = Instant::now();
        if !self.entries.contains_key(peer) {
            if self.entries.len() >= CAPACITY {
                self.forget_unused();
            }
            if self.entries.len() >= CAPACITY {
                return None;
            }
            let unknown = Entry { template: None, problem: None, due: now, resolving: false, used: true };
            self.entries.insert(*peer, unknown);
        }
        let guess = self.recent.iter().flatten().find(|(seen, _)| seen == peer).map(|(_, path)| path);
        let entry = self.entries.get_mut(peer)?;
        if entry.template.is_none() {
            entry.template = guess.map(|path| Template::new(path, peer));
        }
        if !entry.resolving && entry.due <= now {
            entry.resolving = self.resolver.request(*peer);
            entry.due = now + COOLDOWN;
        }
        entry.template
    }

    /// Notes the way that a received packet came.
    pub fn seen(&mut self, from: &Peer, back: &Path) {
        if self.memo.as_ref().is_some_and(|(memo, _)| memo == from) {
            return;
        }
        let last = self.recent[self.recent_at.wrapping_sub(1) % RECENT];
        if last.is_none_or(|(peer, _)| peer != *from) {
            self.recent[self.recent_at % RECENT] = Some((*from, *back));
            self.recent_at = self.recent_at.wrapping_add(1);
        }
    }

    /// Why the last attempt to resolve `peer` failed, if it did.
    pub fn problem(&self, peer: &Peer) -> Option<&str> {
        self.entries.get(peer)?.problem.as_deref()
    }

    /// Takes over what the resolver found out.
    fn collect(&mut self) {
        while let Some((peer, outcome)) = self.resolver.outcome() {
            let Some(entry) = self.entries.get_mut(&peer) else { continue };
            let now = Instant::now();
            entry.resolving = false;
            match outcome {
                Ok(path) => {
                    entry.template = Some(Template::new(&path, &peer));
                    entry.problem = None;
                    entry.due = now + REFRESH;
                }
                // A way that worked until now, or that a packet came, is better than none.
                Err(problem) => {
                    entry.problem = Some(problem);
                    entry.due = now + COOLDOWN;
                }
            }
            if self.memo.as_ref().is_some_and(|(memo, _)| *memo == peer) {
                self.memo = None;
            }
        }
    }

    fn forget_unused(&mut self) {
        let memo = self.memo.take();
        self.entries.retain(|peer, entry| {
            let keep = entry.used || entry.resolving || memo.as_ref().is_some_and(|(last, _)| last == peer);
            entry.used = false;
            keep
        });
    }

    /// Takes over results, refreshes what is in use and forgets what is not.
    pub fn tick(&mut self) {
        self.collect();
        let now = Instant::now();
        if let Some((peer, _)) = &self.memo
            && let Some(entry) = self.entries.get_mut(peer)
        {
            entry.used = true;
        }
        for (peer, entry) in &mut self.entries {
            if entry.used && entry.template.is_some() && !entry.resolving && entry.due <= now {
                entry.resolving = self.resolver.request(*peer);
                entry.due = now + REFRESH;
            }
        }
        if self.sweep <= now {
            self.sweep = now + SWEEP;
            self.forget_unused();
        }
    }
}
