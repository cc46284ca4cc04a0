//! What happened last in a world, line by line in time order: what one reads when a seed has failed.

use crate::MS;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use tollfree_wire::header::{FLAG_CANCEL, FLAG_ENGINE, FLAG_OF_RESPONSE, FLAG_RESET, FLAG_WORKING};
use tollfree_wire::{Header, Kind, Packet};

/// The last lines.
pub struct Trace {
    lines: VecDeque<String>,
    keep: usize,
}

impl Trace {
    /// Keeps so many lines.
    pub fn new(keep: usize) -> Trace {
        Trace { lines: VecDeque::new(), keep }
    }

    /// Adds a line.
    pub fn line(&mut self, now: u64, text: fmt::Arguments<'_>) {
        if self.lines.len() >= self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>14.6} ms  {text}", now as f64 / MS as f64));
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// A packet in a few words.
pub fn describe(bytes: &[u8]) -> String {
    match Packet::decode(bytes) {
        Ok(packet) => words(&packet.header, packet.kind, packet.body.len()),
        Err(reason) => format!("{} bytes that are no packet ({reason})", bytes.len()),
    }
}

fn words(header: &Header, kind: Kind, body_len: usize) -> String {
    let &Header { flags, session, call, sequence, fragment, fragments, .. } = header;
    let mut text = format!("{kind:?}").to_lowercase();
    let names = [
        (FLAG_WORKING, "working"),
        (FLAG_OF_RESPONSE, "of response"),
        (FLAG_RESET, "reset"),
        (FLAG_CANCEL, "cancel"),
        (FLAG_ENGINE, "engine"),
    ];
    for (_, name) in names.iter().filter(|(flag, _)| flags & flag != 0) {
        let _ = write!(text, " {name}");
    }
    if !kind.is_handshake() {
        let _ = write!(text, " session {session:#x} call {}.{} #{sequence}", call & 0xff, call >> 8);
    }
    if fragments > 1 {
        let _ = write!(text, " fragment {} of {fragments}", fragment + 1);
    }
    let _ = write!(text, ", {body_len} bytes");
    text
}
