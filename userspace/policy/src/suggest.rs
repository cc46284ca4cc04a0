//! "Did you mean …?"

/// Names that one is compared with; a text can have very many.
const COMPARED_MAX: usize = 256;

/// The known name closest to what was written, if any is close enough to be a slip.
pub(crate) fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .take(COMPARED_MAX)
        .map(|name| (distance(written, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "did you mean `x`?", or the list of what there is.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    what: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(name) = closest(written, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let mut names: Vec<&str> = known.into_iter().take(COMPARED_MAX).collect();
    names.sort_unstable();
    names.dedup();
    const LISTED_MAX: usize = 12;
    let rest = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{what}: {}{more}", names.join(", ")))
}

/// Edits (insert, delete, replace, swap neighbours) between two names; names that
/// differ only in case are one apart.
fn distance(a: &str, b: &str) -> usize {
    if a.eq_ignore_ascii_case(b) {
        return usize::from(a != b);
    }
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    // Names that long are not slips of each other; comparing them would only take time.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        assert_eq!(closest("usr", ["user", "tenant"]), Some("user"));
        assert_eq!(closest("uesr", ["user", "tenant"]), Some("user"));
        assert_eq!(closest("allow", ["ALLOW", "DENY"]), Some("ALLOW"));
        assert_eq!(closest("password", ["user", "tenant"]), None);
        assert_eq!(did_you_mean("x1", "there are", ["b", "a"]).unwrap(), "there are: a, b");
        assert_eq!(did_you_mean("x1", "there are", []), None);
    }
}
