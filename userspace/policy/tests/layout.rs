//! The canonical layout: it changes nothing when applied again, keeps every comment, and means the same.

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tollfree_policy::{Options, Side, Source, emit_ir, format, sides};
use tollfree_schema::Manifest;

fn schema() -> Manifest {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let files = ["hash.proto", "kv.proto", "shop.proto"].map(|name| folder.join(name));
    let files: Vec<PathBuf> = files.into_iter().filter(|file| file.exists()).collect();
    Manifest::from_proto(&files, &[folder]).unwrap()
}

fn policies(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            policies(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "policy") {
            found.push(path);
        }
    }
}

fn meaning(text: &str, schema: &Manifest) -> Vec<Option<String>> {
    let source = Source { name: "p", text };
    let mut wanted = sides(&source);
    wanted.push(Side::Server);
    let options = |side| Options { side: Some(side), ..Options::default() };
    wanted.into_iter().map(|side| emit_ir(&source, schema, options(side)).ok()).collect()
}

fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).map(|c| if c == '"' { '\'' } else { c }).collect()
}

/// Formats a text that can be read; whether it could.
fn holds(text: &str, schema: &Manifest) -> bool {
    let Ok(once) = format(&Source { name: "p", text }) else { return false };
    let twice = format(&Source { name: "p", text: &once })
        .unwrap_or_else(|error| panic!("{error}\nwas\n{text}\nis\n{once}"));
    assert_eq!(once, twice, "was\n{text}");
    assert_eq!(meaning(text, schema), meaning(&once, schema), "was\n{text}\nis\n{once}");
    assert_eq!(words(&once), words(text), "{once}");
    assert!(once.lines().all(|line| line == line.trim_end()), "{once}");
    true
}

#[test]
fn every_policy_of_the_repository_means_the_same() {
    let schema = schema();
    let mut found = Vec::new();
    policies(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies"), &mut found);
    policies(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut found);
    let formatted =
        found.iter().filter(|path| holds(&std::fs::read_to_string(path).unwrap(), &schema)).count();
    assert!(formatted > 5, "{formatted} of {}", found.len());
    println!("{formatted} of {} can be read", found.len());
}

#[test]
fn the_layout_is_as_documented() {
    let untidy = "# first
a( 3 ,limit=5 )->b()   at server for  kv.Kv/Get|Set | kv . Kv / Admin* on br-lan   audit # trailing


# about state
state :
  t : table( string( 32 )->A|B ,capacity=4 ,evict=lru )
  n:u64=5
a( x,limit = - 1):
   request:
      match get(rpc,\"user\")   :
        'it''s'=>drop()

      # about the next arm
        NONE|'b*'if not(x<-1)and x - -2>3=>
            set( t ,get(rpc,'user'),  # why
              A)
            y=-x*( 2+3 )%4
            log('a rather long text', 'another rather long text', 'a third rather long text', y, y + 1, hash(y, y))
            # last in the arm
      # last in the handler
";
    let tidy = "# first
a(3, limit = 5) -> b() at server for kv.Kv/Get | Set | kv.Kv/Admin* on br-lan audit  # trailing

# about state
state:
    t: table(string(32) -> A | B, capacity = 4, evict = lru)
    n: u64 = 5
a(x, limit = -1):
    request:
        match get(rpc, 'user'):
            'it' 's' => drop()

            # about the next arm
            NONE | 'b*' if not (x < -1) and x - -2 > 3 =>
                set(t, get(rpc, 'user'),  # why
                        A)
                y = -x * (2 + 3) % 4
                log('a rather long text', 'another rather long text', 'a third rather long text', y,
                        y + 1, hash(y, y))
                # last in the arm
        # last in the handler
";
    let untidy = untidy.replace("'it''s'", "'its'");
    let tidy = tidy.replace("'it' 's'", "'its'");
    assert_eq!(format(&Source { name: "p", text: &untidy }).unwrap(), tidy);
    assert_eq!(format(&Source { name: "p", text: &tidy }).unwrap(), tidy);
}

const LINES: [&str; 24] = [
    "a() -> b(3, x = 'y') at client for Get | kv.Kv* on eth0.12 audit",
    "a()",
    "state:",
    "    t: table(string(31), method -> u64, capacity = 9, evict = lru)",
    "    c: counter",
    "    n: i64 = -5",
    "a():",
    "    request:",
    "    response:",
    "        x = get(rpc, 'user')",
    "        y = -1 - 2 * (3 + 4) % 5",
    "        match x:",
    "            'a*' | NONE if not (y == 1) and y < 3 or y > 4 => drop()",
    "            Some(z) =>",
    "                set(t, z, method, 5)",
    "                # a comment",
    "            _ => reject(ABORTED, \"why\") # behind",
    "            1..5 | -3 => send(rpc)",
    "    take(t, 100/s, burst = 20)",
    "# alone",
    "",
    "match rpc-schema:",
    "    GET | kv.Kv/Set => reliable() -> ordered() -> timeout(10ms)",
    "    log(1.5, 10%, 4KiB,  # why\n        250ms)",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn random_lines_keep_their_meaning(lines in proptest::collection::vec(0..LINES.len(), 0..14), tabs in any::<bool>()) {
        let lines: Vec<&str> = lines.into_iter().map(|line| LINES[line]).collect();
        let text = lines.join("\n");
        let text = if tabs { text.replace("    ", "\t") } else { text };
        holds(&text, &Manifest::default());
    }
}
