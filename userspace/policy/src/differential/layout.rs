//! The canonical layout means what was written, however untidily that was.

use super::calls::schema;
use super::generate::{self, For};
use super::random::Random;
use crate::{Options, Source, emit_ir, format};

/// Spoils a text's layout: spaces around punctuation, comments, blank lines, another width of blocks.
fn untidy(random: &mut Random, text: &str) -> String {
    let width = random.below(7) + 1;
    let mut out = String::new();
    for line in text.lines() {
        let words = line.trim_start_matches(' ');
        let depth = (line.len() - words.len()) / 4;
        if random.below(6) == 0 {
            out.push_str(["\n", "\n\n\n", "   # a comment\n", "# 'another'\n"][random.below(4)]);
        }
        out.push_str(&" ".repeat(depth * width));
        let mut quoted = false;
        for c in words.chars() {
            quoted ^= c == '\'';
            // Inside a number or a path nothing can stand; in front of these nothing is needed.
            let space = !quoted && [',', '(', ')', '|'].contains(&c) && random.below(3) == 0;
            out.push_str(if space { "  " } else { "" });
            out.push(c);
            if c == ',' && !quoted {
                out.push_str(["", " ", "\n      ", "  # why\n     "][random.below(4)]);
            }
        }
        out.push_str(["", " ", "  # behind", "#behind"][random.below(4)]);
        out.push('\n');
    }
    out
}

#[test]
fn formatting_changes_nothing() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let to = if seed % 2 == 0 { For::BothBackEnds } else { For::TheEngine };
        let written = generate::policy(&mut random, to);
        let untidy = untidy(&mut random, &written);
        let understood = |text: &str| {
            let source = Source { name: "random.policy", text };
            emit_ir(&source, &schema(), Options::default()).map_err(|error| error.to_string())
        };
        let tidy = |text: &str| {
            format(&Source { name: "random.policy", text })
                .unwrap_or_else(|error| panic!("seed {seed}:\n{error}\n{text}"))
        };
        let once = tidy(&untidy);
        assert_eq!(tidy(&once), once, "seed {seed}, of\n{untidy}");
        match (understood(&written), understood(&once)) {
            (Ok(before), Ok(after)) => assert_eq!(before, after, "seed {seed}:\n{written}\nis\n{once}"),
            (Err(_), Err(_)) => {}
            (before, after) => panic!("seed {seed}: {before:?} is {after:?}\n{written}\nis\n{once}"),
        }
    }
}
