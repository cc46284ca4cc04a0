//! Whether a running daemon can honour what a policy asks for. What it cannot is refused before anything has changed:
//! a policy that silently means less than it says is worse than none.

use super::config::Secret;
use std::collections::BTreeMap;
use tollfree_policy::{Compiled, Needs};

/// Refuses a policy that needs what this daemon does not have.
///
/// # Errors
/// A sentence that names it.
pub fn check(name: &str, compiled: &Compiled, keys: &BTreeMap<String, Secret>) -> Result<(), String> {
    let Needs {
        backends,
        authorisers,
        keys: wanted,
        peer,
        // Travels with every call.
        metadata: _,
        retry,
        eject,
        delayed_stream,
    } = &compiled.needs;
    let missing = |what: String| {
        Err(format!(
            "{name}: {what}; it cannot be in force here, but `tollfree policy check`, `explain` and `test` take it"
        ))
    };
    if let Some(key) = wanted.iter().find(|key| !keys.contains_key(*key)) {
        return missing(format!(
            "it encrypts with the key {key}, which the daemon's configuration does not have under [keys]"
        ));
    }
    if let Some(group) = backends.first() {
        return missing(format!(
            "it sends calls to backends ({group}), of which this daemon knows one per service"
        ));
    }
    if let Some(authoriser) = authorisers.first() {
        return missing(format!("it asks the authoriser {authoriser}, and this daemon can ask none"));
    }
    if *retry {
        return missing("it retries calls, which this daemon cannot".to_owned());
    }
    if *eject {
        return missing("it ejects backends, of which this daemon knows one per service".to_owned());
    }
    if let Some(path) = delayed_stream {
        return missing(format!("it delays the responses of {path}, whose stream this daemon does not hold"));
    }
    if let Some(asked) = peer.iter().find(|asked| !asked.starts_with("label.")) {
        return missing(format!(
            "it asks for the {asked} of its peers, and this daemon checks no tokens: it would always be absent"
        ));
    }
    Ok(())
}
