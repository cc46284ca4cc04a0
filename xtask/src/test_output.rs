//! Reads what `cargo test -- --show-output` prints and counts.
//!
//! A test that cannot run for lack of a privilege passes in the harness's eyes and prints `skipped: why`. Here it counts
//! as skipped, so that nobody takes "passed" for "ran".

/// What came of some tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many ran and were right.
    pub passed: usize,
    /// Names of those that were wrong.
    pub failed: Vec<String>,
    /// Names of those that did not run, and why.
    pub skipped: Vec<(String, String)>,
}

impl Tally {
    /// Takes in another tally.
    pub fn add(&mut self, other: Tally) {
        let Tally { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed.extend(failed);
        self.skipped.extend(skipped);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Follows the output line by line.
#[derive(Debug, Default)]
pub struct Reader {
    tally: Tally,
    /// Inside the part that repeats what passing tests printed.
    in_successes: bool,
    /// The test whose output is being repeated, and whether it has said that it was skipped.
    speaker: Option<(String, bool)>,
}

impl Reader {
    /// Takes a line; says whether it is worth showing.
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.speaker = Some((name.to_owned(), false));
        } else if let Some(why) = line.strip_prefix("skipped: ").filter(|_| self.in_successes) {
            self.skipped(why);
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.in_successes = false;
            self.speaker = None;
        } else if let Some(outcome) = line.strip_prefix("test ") {
            self.outcome(outcome);
        }
        !self.in_successes
    }

    fn skipped(&mut self, why: &str) {
        if let Some((name, told @ false)) = &mut self.speaker {
            *told = true;
            self.tally.skipped.push((name.clone(), why.to_owned()));
            self.tally.passed = self.tally.passed.saturating_sub(1);
        }
    }

    fn outcome(&mut self, line: &str) {
        let Some((name, outcome)) = line.rsplit_once(" ... ") else { return };
        if outcome == "ok" || outcome.starts_with("ok ") {
            self.tally.passed += 1;
        } else if outcome.starts_with("FAILED") {
            self.tally.failed.push(name.to_owned());
        } else if let Some(why) = outcome.strip_prefix("ignored") {
            let why = why.trim_start_matches([',', ' ']);
            let why = if why.is_empty() { "ignored" } else { why };
            self.tally.skipped.push((name.to_owned(), why.to_owned()));
        }
    }

    /// The count.
    pub fn finish(self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test alone::works ... ok
test netns::tcp ... ok
test slow ... ignored, takes an hour
test wrong ... FAILED

successes:

---- netns::tcp stdout ----
some talk
skipped: needs root (CAP_NET_ADMIN)
skipped: said twice


successes:
    alone::works
    netns::tcp

failures:

---- wrong stdout ----
skipped: not believed, it failed

failures:
    wrong

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn a_skipped_test_is_not_a_passed_one() {
        let mut reader = Reader::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| reader.line(line)).collect();
        assert!(!shown.contains(&"some talk") && shown.contains(&"---- wrong stdout ----"));
        let tally = reader.finish();
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(tally.failed, ["wrong"]);
        assert_eq!(tally.skipped[0], ("slow".into(), "takes an hour".into()));
        assert_eq!(tally.skipped[1], ("netns::tcp".into(), "needs root (CAP_NET_ADMIN)".into()));
    }
}
