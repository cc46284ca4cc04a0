//! The program as people read it: what `--emit asm` prints, with the elements and the lines of the policy it comes from.

use super::asm::disassemble;
use super::elf::program_name;
use super::program::{Mark, Part, What};
use crate::Source;
use crate::ir::Policy;
use std::fmt::Write as _;

/// A program and what to say about it.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    parts: Vec<Text>,
    maps: Vec<String>,
    elements: Vec<String>,
    source: String,
}

#[derive(Clone, Debug)]
struct Text {
    bytes: Vec<u8>,
    maps: Vec<(u64, usize)>,
    lines: Vec<(usize, crate::diagnostics::Span)>,
    marks: Vec<Mark>,
}

impl Listing {
    pub(super) fn new(parts: Vec<Part>, maps: Vec<String>, policy: &Policy, source: &Source<'_>) -> Listing {
        let text = |Part { code, marks }| {
            let super::asm::Code { bytes, maps, lines, moved: _ } = code;
            Text { bytes, maps, lines, marks }
        };
        Listing {
            parts: parts.into_iter().map(text).collect(),
            maps,
            elements: policy.elements.iter().map(|element| element.name.clone()).collect(),
            source: source.text.to_owned(),
        }
    }

    /// One instruction a line: its number, what it does. Comments begin with `;`.
    pub(crate) fn print(&self) -> String {
        let mut text = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}:", program_name(at));
            self.print_part(part, &mut text);
        }
        text
    }

    fn print_part(&self, part: &Text, text: &mut String) {
        let Text { bytes, maps, lines, marks } = part;
        let words = bytes.as_chunks::<8>().0;
        let mut marks = marks.iter().peekable();
        let mut lines = lines.iter().peekable();
        let mut said = None;
        let mut at = 0;
        while let Some(word) = words.get(at) {
            while let Some(Mark { what, .. }) = marks.next_if(|mark| mark.at <= at) {
                let _ = writeln!(text, "; {}", self.describe(what));
                said = None;
            }
            while let Some((_, span)) = lines.next_if(|(line, _)| *line <= at) {
                let (number, line) = self.line(span.start);
                if said != Some(number) {
                    let _ = writeln!(text, ";   {number}: {line}");
                    said = Some(number);
                }
            }
            let map = maps.iter().find(|(offset, _)| *offset == at as u64 * 8);
            let map = map.and_then(|(_, map)| self.maps.get(*map)).map(String::as_str);
            let (instruction, length) = disassemble(at, word, words.get(at + 1), map);
            let _ = writeln!(text, "{at:>6}  {instruction}");
            at += length;
        }
    }

    fn describe(&self, what: &What) -> String {
        match what {
            What::Entry => "entry".into(),
            What::Group(group) => format!("methods of group {group}"),
            What::Element(element) => {
                let name = self.elements.get(*element).map_or("", String::as_str);
                format!("element {name}()")
            }
            What::Ends => "ends".into(),
        }
    }

    /// A line of the policy and its number.
    fn line(&self, at: usize) -> (usize, &str) {
        let before = self.source.get(..at).unwrap_or_default();
        let number = before.matches('\n').count();
        (number + 1, self.source.lines().nth(number).unwrap_or_default().trim())
    }
}
