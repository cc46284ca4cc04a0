//! What only the engine does with calls, by hand-computed examples: pauses for authorisers, responses in reverse, retries,
//! effects, encryption, logs, virtual time, tables that evict, writes for XDP, and policies that follow one another.

use tollfree_policy::{
    CallView, Change, Compiled, Eject, Options, Outcome, PeerView, Program, ResponseView, Route, Side,
    Source, Start, State, Verdict, compile,
};
use tollfree_schema::{FieldKind, Layout, Manifest, Member, Method, Service, Streaming, method_id};
use tollfree_wire::{Code, Reason};

const MS: u64 = 1_000_000;
const REFUSED: Verdict = Verdict::Reject(Code::PermissionDenied, Reason::PolicyReject);

fn method(name: &str, request: &[(&str, FieldKind)], response: &[(&str, FieldKind)]) -> Method {
    let layout = |name: String, fields: &[(&str, FieldKind)]| {
        let members = fields.iter().zip(1..);
        let members =
            members.map(|((name, kind), number)| Member { name: (*name).into(), number, kind: kind.clone() });
        Layout::new(name, members.collect(), 192).unwrap()
    };
    let path = format!("/kv.Kv/{name}");
    Method {
        name: name.into(),
        id: method_id(&path),
        path,
        request: layout(format!("{name}Request"), request),
        response: layout(format!("{name}Response"), response),
        streaming: Streaming::Unary,
    }
}

fn schema() -> Manifest {
    let (key, value) = (FieldKind::String { max_len: 15 }, FieldKind::Bytes { max_len: 60 });
    let methods = vec![
        method("Get", &[("key", key.clone())], &[("value", value.clone())]),
        method("Put", &[("key", key), ("value", value), ("share", FieldKind::F64)], &[]),
    ];
    Manifest { services: vec![Service { name: "kv.Kv".into(), methods }] }
}

fn compiled(text: &str, side: Side, xdp: bool) -> Compiled {
    let options = Options { side: Some(side), xdp, ..Options::default() };
    compile(&Source { name: "test.policy", text }, &schema(), options)
        .unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"))
}

/// A policy at work on calls of one method.
struct World {
    program: Program,
    state: State,
    method: Method,
    request: Vec<u8>,
    response: Vec<u8>,
    now_ns: u64,
}

impl World {
    fn new(text: &str, side: Side, method: &str) -> World {
        World::of(compiled(text, side, false).program, method)
    }

    fn of(program: Program, method: &str) -> World {
        let schema = schema();
        let method = schema.methods().find(|known| known.name == method).unwrap().clone();
        let state = program.new_state();
        let request = vec![0; usize::from(method.request.flat_len)];
        let response = vec![0; usize::from(method.response.flat_len)];
        World { program, state, method, request, response, now_ns: 1000 * MS }
    }

    /// With this key in the request.
    fn key(&mut self, key: &str) -> &mut World {
        self.request[0] = key.len() as u8;
        self.request[1..16].fill(0);
        self.request[1..1 + key.len()].copy_from_slice(key.as_bytes());
        self
    }

    fn with<R>(&mut self, then: impl FnOnce(&Program, &mut State, &mut CallView<'_>) -> R) -> R {
        let peer = PeerView { identity: Some("alice"), ..PeerView::default() };
        let mut call = CallView {
            method: self.method.id,
            layout: self.method.request.fingerprint,
            size: 100,
            flat: &mut self.request,
            deadline_ns: Some(500 * MS),
            port: 7400,
            now_ns: self.now_ns,
            session: None,
            peer: &peer,
            metadata: &[],
            backends: &[3, 4],
            start: Start::Chain,
        };
        then(&self.program, &mut self.state, &mut call)
    }

    fn judge(&mut self) -> Outcome {
        self.with(|program, state, call| program.judge(state, call).clone())
    }

    fn verdict(&mut self) -> Verdict {
        self.judge().verdict
    }

    fn answered(&mut self, status: Code, attempt: u32, ended_at: Option<usize>) -> Outcome {
        let (layout, mut flat) = (self.method.response.fingerprint, self.response.clone());
        let outcome = self.with(|program, state, call| {
            let mut response = ResponseView {
                status,
                layout,
                size: flat.len() as u32,
                flat: &mut flat,
                latency_ns: 20 * MS,
                backend: Some(2),
                attempt,
                ended_at,
            };
            program.judge_response(state, call, &mut response).clone()
        });
        self.response = flat;
        outcome
    }

    fn table(&self, name: &str) -> Vec<(String, String)> {
        self.state.table_dump(name).unwrap()
    }
}

fn entries(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const ASKING: &str = "
before() -> asking()
state:
    seen: u64
    asked: table(string(15) -> u64)
before():
    add(seen, 1)
    send(rpc)
asking():
    key = get(rpc, 'key')
    add(asked, key, 1)
    delay(5ms)
    match ask('gate'):
        true => send(rpc)
        false => reject(PERMISSION_DENIED, 'says the gate')
        NONE => drop()
";

#[test]
fn a_call_waits_for_an_authoriser_and_goes_on_where_it_was() {
    let mut world = World::new(ASKING, Side::Server, "Get");
    world.key("tea");
    assert_eq!(world.program.authorisers(), ["gate"]);
    for (word, verdict, why) in [
        (Some(true), Verdict::Send, None),
        (Some(false), REFUSED, Some("says the gate")),
        (None, Verdict::Drop(Reason::PolicyDrop), None),
    ] {
        let outcome = world.judge();
        assert_eq!((outcome.verdict, outcome.element), (Verdict::Ask(0), Some(1)));
        // Another call in between does not disturb it.
        world.key("coffee");
        world.judge();
        world.key("tea");
        let paused = *outcome.paused.unwrap();
        let after = world.with(|program, state, call| program.resume(state, call, paused, word).clone());
        assert_eq!((after.verdict, after.why.as_deref(), after.delay_ns), (verdict, why, 5 * MS));
    }
    assert_eq!(world.table("seen"), entries(&[("", "6")]), "once each");
    assert_eq!(world.table("asked"), entries(&[("coffee", "3"), ("tea", "3")]));
}

#[test]
fn a_policy_that_came_in_between_judges_from_the_beginning() {
    let mut world = World::new(ASKING, Side::Server, "Get");
    let paused = *world.judge().paused.unwrap();
    world.program = compiled("all()\nall():\n    drop()\n", Side::Server, false).program;
    world.state = world.program.new_state();
    let after = world.with(|program, state, call| program.resume(state, call, paused, Some(true)).clone());
    assert_eq!(after.verdict, Verdict::Drop(Reason::PolicyDrop));
}

#[test]
fn responses_meet_the_elements_in_reverse_and_only_those_the_request_has_met() {
    let text = "
first() -> second() -> third()
state:
    order: u64
first():
    response:
        set(order, get(order) * 10 + 1)
second():
    request:
        drop()
    response:
        set(order, get(order) * 10 + 2)
third():
    response:
        set(order, get(order) * 10 + 3)
";
    let mut world = World::new(text, Side::Server, "Get");
    assert_eq!(world.answered(Code::Ok, 1, None).verdict, Verdict::Send);
    assert_eq!(world.table("order"), entries(&[("", "321")]));
    world.state.table_set("order", "", "0").unwrap();
    let ended = world.judge();
    assert_eq!((ended.verdict, ended.element), (Verdict::Drop(Reason::PolicyDrop), Some(1)));
    world.answered(Code::Ok, 1, ended.element);
    assert_eq!(world.table("order"), entries(&[("", "1")]));
}

#[test]
fn a_response_in_a_layout_that_nobody_knows_is_refused() {
    let text = "hide()\nhide():\n    response:\n        delete(rpc, 'value')\n";
    let mut world = World::new(text, Side::Server, "Get");
    world.response[0] = 3;
    assert_eq!(world.answered(Code::Ok, 1, None).verdict, Verdict::Send);
    assert_eq!(world.response[0], 0);
    assert!(world.program.changes_responses() && !world.program.changes_requests());
    world.method.response.fingerprint ^= 1;
    let unknown = Verdict::Reject(Code::FailedPrecondition, Reason::UnknownLayout);
    assert_eq!(world.answered(Code::Ok, 1, None).verdict, unknown);
}

#[test]
fn calls_are_made_again_as_often_as_the_policy_says() {
    let text = "
again() at client
again():
    response:
        match status:
            UNAVAILABLE => retry(max = 2, budget = 50%)
            _ => send(rpc)
";
    let mut world = World::new(text, Side::Client, "Get");
    for _ in 0..10 {
        assert_eq!(world.verdict(), Verdict::Send);
    }
    let mut retries = |attempt| world.answered(Code::Unavailable, attempt, None).verdict;
    assert_eq!([1, 2, 3].map(&mut retries), [Verdict::Retry, Verdict::Retry, Verdict::Send]);
    // Half of ten, and no more than that one.
    let more = (0..10).filter(|_| retries(1) == Verdict::Retry).count();
    assert_eq!(more, 4, "while not more than 5 of 10 were made again, two of them above");
    assert_eq!(world.answered(Code::Ok, 1, None).verdict, Verdict::Send);
}

#[test]
fn effects_are_noted_for_the_engine() {
    let text = "
first() -> second() at client
first():
    delay(5ms)
    timeout(300ms)
    route('green')
    mirror('shadow')
    send(rpc)
second():
    request:
        delay(2ms)
        timeout(deadline - 400ms)
        route('region=eu', backends('green') + 4)
        mirror('green')
        send(rpc)
    response:
        match latency > 10ms:
            true => eject(30s, max = 25%)
            false => pass
";
    let mut world = World::new(text, Side::Client, "Get");
    let selectors: Vec<&str> = world.program.selectors().iter().map(String::as_str).collect();
    assert_eq!(selectors, ["green", "shadow", "region=eu"]);
    let outcome = world.judge();
    assert_eq!((outcome.delay_ns, outcome.timeout_ns), (7 * MS, Some(100 * MS)));
    assert_eq!(outcome.route, Some(Route { selector: 2, index: Some(7) }));
    assert_eq!(outcome.mirrors().collect::<Vec<_>>(), [0, 1]);
    let eject = Eject { duration_ns: 30_000 * MS, max_ppm: 250_000 };
    assert_eq!(world.answered(Code::Ok, 1, None).eject, Some(eject));
}

#[test]
fn what_one_end_encrypts_the_other_decrypts() {
    let text = "
seal() at client
open() at server
seal():
    match encrypt(rpc, 'value', 'k'):
        true => send(rpc)
        _ => reject(PERMISSION_DENIED)
open():
    match decrypt(rpc, 'value', 'k'):
        true => send(rpc)
        _ => reject(PERMISSION_DENIED)
";
    let (mut seal, mut open) = (World::new(text, Side::Client, "Put"), World::new(text, Side::Server, "Put"));
    assert_eq!(seal.verdict(), REFUSED, "without a key");
    assert_eq!(seal.program.keys(), ["k"]);
    for world in [&mut seal, &mut open] {
        world.program.set_keys(|name| (name == "k").then_some([9; 32]));
    }
    let plain = {
        seal.request[16] = 5;
        seal.request[17..22].copy_from_slice(b"hello");
        seal.request.clone()
    };
    assert_eq!(seal.verdict(), Verdict::Send);
    assert_eq!(seal.request[16], 53, "48 more");
    assert_eq!(open.verdict(), REFUSED, "of what was not encrypted");
    open.request = seal.request.clone();
    assert_eq!(open.verdict(), Verdict::Send);
    assert_eq!(open.request, plain, "to the last byte of padding");

    // What lies behind a text does not get out, and not in.
    seal.request = plain.clone();
    seal.request[22..77].fill(7);
    assert_eq!(seal.verdict(), Verdict::Send);
    assert_eq!(seal.request[17 + 53..77], [0; 7]);
    open.request = seal.request.clone();
    open.request[17 + 53..77].fill(7);
    assert_eq!(open.verdict(), Verdict::Send);
    assert_eq!(open.request, plain);
    seal.request[16] = 13;
    assert_eq!(seal.verdict(), REFUSED, "13 + 48 bytes do not fit 60");
}

#[test]
fn a_rate_holds_over_time() {
    let text = "
limit()
state:
    buckets: table(string(15) -> bucket, evict = lru)
limit():
    match take(buckets, get(rpc, 'key'), 10/s, burst = 2):
        true => send(rpc)
        _ => reject(PERMISSION_DENIED)
";
    let mut world = World::new(text, Side::Server, "Get");
    world.key("tea");
    let mut at = |ms: u64| {
        world.now_ns = ms * MS;
        world.verdict() == Verdict::Send
    };
    assert_eq!([5000, 5000, 5000].map(&mut at), [true, true, false]);
    assert_eq!([5099, 5100, 5101, 5199, 5200].map(&mut at), [false, true, false, false, true]);
    assert_eq!([9000, 9000, 9000].map(&mut at), [true, true, false], "a burst, however long nothing came");
    assert_eq!((0..10_000).filter(|ms| at(20_000 + ms)).count(), 101, "10/s for ten seconds, and one ahead");
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let text = "
count()
state:
    seen: table(string(15) -> u64, capacity = 2, evict = lru)
count():
    match get(rpc, 'key') != 'look':
        true => add(seen, get(rpc, 'key'), 1)
        _ => match get(seen, 'tea'):
            _ => pass
    send(rpc)
";
    let mut world = World::new(text, Side::Server, "Get");
    for key in ["tea", "coffee", "look", "milk"] {
        world.key(key).judge();
    }
    assert_eq!(
        world.table("seen"),
        entries(&[("milk", "1"), ("tea", "1")]),
        "tea was looked up after coffee"
    );
}

#[test]
fn a_dry_run_refuses_nothing_and_counts() {
    let text = "strict() -> strict() audit\nstrict():\n    reject(PERMISSION_DENIED)\n";
    let mut world = World::new(text, Side::Server, "Get");
    let outcome = world.judge();
    assert_eq!((outcome.verdict, outcome.audited), (Verdict::Send, 2));
}

#[test]
fn floats_are_floats() {
    let text = "
share() for Put
share():
    x = get(rpc, 'share')
    match x * 2.0 > 1.0 and x < float(size) / 100.0:
        true => send(rpc)
        _ => reject(PERMISSION_DENIED)
";
    let mut world = World::new(text, Side::Server, "Put");
    let at = usize::from(world.method.request.fields[2].offset);
    for (share, verdict) in [(0.5, REFUSED), (0.75, Verdict::Send), (1.0, REFUSED), (f64::NAN, REFUSED)] {
        world.request[at..at + 8].copy_from_slice(&share.to_le_bytes());
        assert_eq!(world.verdict(), verdict, "{share}");
    }
}

#[test]
fn lines_for_the_log_wait_for_the_engine() {
    let text =
        "note()\nnote():\n    log(method, get(rpc, 'key'), size * 2, deadline, get(peer, 'identity'))\n";
    let mut world = World::new(text, Side::Server, "Get");
    world.key("a\nb").judge();
    let mut lines = Vec::new();
    let lost = world.state.take_log(|line| lines.push((line.element.to_owned(), line.text.to_owned())));
    assert_eq!(lost, 0);
    assert_eq!(lines, [("note".to_owned(), "Get a\\nb 200 500ms alice".to_owned())]);
    assert_eq!(world.state.take_log(|_| panic!("twice")), 0);
}

#[test]
fn what_xdp_reads_is_written_through() {
    let text = "
cache() for Get
state:
    values: table(string(15) -> bytes(60), evict = lru)
cache():
    request:
        match get(values, get(rpc, 'key')):
            Some(value) => answer('value', value)
            NONE => send(rpc)
    response:
        set(values, get(request, 'key'), get(rpc, 'value'))
";
    let compiled = compiled(text, Side::Server, true);
    assert_eq!((compiled.in_xdp, compiled.shared.as_slice()), (1, &[0][..]));
    let mut world = World::of(compiled.program, "Get");
    assert!(world.program.keep_request());
    world.key("tea");
    assert_eq!(world.verdict(), Verdict::Send);
    world.response[..3].copy_from_slice(b"\x02ok");
    world.answered(Code::Ok, 1, None);
    let mut changes = Vec::new();
    world.state.take_changes(|change| match change {
        Change::Entry { table, key, value } => changes.push((table, key.to_vec(), value.map(<[u8]>::to_vec))),
        Change::All { .. } => panic!("{change:?}"),
    });
    let mut key = b"\x03tea".to_vec();
    key.resize(16, 0);
    assert_eq!(changes, [(0, key, Some(world.response.clone()))]);
    assert!(!world.state.has_changes());
    assert_eq!(world.verdict(), Verdict::Answer);
    let answer = world.state.answer().unwrap();
    assert_eq!((answer.layout, answer.flat), (world.method.response.fingerprint, &world.response[..]));
    let before = world.with(|program, state, call| {
        call.start = Start::AfterXdp;
        program.judge(state, call).verdict
    });
    assert_eq!(before, Verdict::Send, "what XDP has sent on is not judged by the same element again");
    assert_eq!(world.state.answer(), None);
}

#[test]
fn a_cell_is_written_through_by_its_key_whatever_was_looked_up_before() {
    let text = "
shed() for Get
state:
    limit: u64 = 100
    seen: table(string(15) -> u64)
shed():
    request:
        match size > get(limit):
            true => reject(PERMISSION_DENIED)
            false => send(rpc)
    response:
        add(seen, get(request, 'key'), 1)
        add(limit, 5)
";
    let compiled = compiled(text, Side::Server, true);
    assert_eq!((compiled.in_xdp, compiled.shared.as_slice()), (1, &[0][..]));
    let mut world = World::of(compiled.program, "Get");
    world.key("tea").answered(Code::Ok, 1, None);
    let mut changes = Vec::new();
    world.state.take_changes(|change| changes.push(format!("{change:?}")));
    let value = 105u64.to_le_bytes();
    let expected = Change::Entry { table: 0, key: &[0; 4], value: Some(&value) };
    assert_eq!(changes, [format!("{expected:?}")]);
}

#[test]
fn tables_go_from_one_policy_to_the_next() {
    let text = |capacity: u32| {
        format!(
            "count()\nstate:\n    seen: table(string(15) -> u64, capacity = {capacity}, evict = lru)\ncount():\n    \
             add(seen, get(rpc, 'key'), 1)\n"
        )
    };
    let mut old = World::new(&text(3), Side::Server, "Get");
    for key in ["a", "b", "c"] {
        old.key(key).judge();
    }
    let mut smaller = World::new(&text(2), Side::Server, "Get");
    smaller.state.exchange(&mut old.state);
    assert_eq!(smaller.table("seen"), [], "of another capacity: the engine copies those entry by entry");
    let mut same = World::new(&text(3), Side::Server, "Get");
    same.state.exchange(&mut old.state);
    assert_eq!(same.table("seen").len(), 3);
    assert_eq!(old.table("seen"), []);
}

/// More constants than there are registers for them, and keys on both sides of where rows are found without hashing.
#[test]
fn a_policy_of_many_constants_counts_each_key_by_its_own() {
    let adds: String = (0..300).map(|key| format!("    add(counts, {key}, {})\n", 1000 + 7 * key)).collect();
    let text = format!(
        "count()\nstate:\n    counts: table(u64 -> u64, capacity = 400)\ncount():\n{adds}    send(rpc)\n"
    );
    let mut world = World::new(&text, Side::Server, "Get");
    assert_eq!([world.verdict(), world.verdict()], [Verdict::Send; 2]);
    let mut expected: Vec<_> =
        (0..300).map(|key| (key.to_string(), (2 * (1000 + 7 * key)).to_string())).collect();
    expected.sort();
    assert_eq!(world.table("counts"), expected);
}

/// Each match keeps what it is about while those inside it load theirs.
#[test]
fn matches_in_one_another_keep_what_they_are_about() {
    const DEPTH: usize = 12;
    let mut text = "nest()\nnest():\n".to_owned();
    for level in 0..DEPTH {
        let indent = "        ".repeat(level) + "    ";
        // The first arm's guard loads others before the subject is looked at again.
        let (subject, value, other) = if level % 2 == 0 { ("size", 100, 101) } else { ("port", 7400, 7401) };
        text += &format!("{indent}match {subject}:\n");
        text += &format!("{indent}    {value} if size > port + {level} => drop()\n");
        text += &format!("{indent}    {other} => reject(ABORTED)\n");
        text += &format!("{indent}    {value} =>\n");
    }
    let deepest = "        ".repeat(DEPTH) + "    reject(PERMISSION_DENIED)\n";
    text += &deepest;
    for level in (0..DEPTH).rev() {
        text += &format!("{}    _ => send(rpc)\n", "        ".repeat(level) + "    ");
    }
    let mut world = World::new(&text, Side::Server, "Get");
    assert_eq!(world.verdict(), REFUSED, "{text}");
}

/// By the number that stands for a case, not by all that is no other case.
#[test]
fn a_value_that_is_no_case_lets_nothing_through() {
    let text = "
acl()
state:
    rules: table(string(15) -> ALLOW | DENY)
acl():
    match get(rules, get(rpc, 'key')):
        ALLOW | NONE => send(rpc)
        DENY => reject(PERMISSION_DENIED)
";
    let mut world = World::new(text, Side::Server, "Get");
    assert_eq!(world.key("tea").verdict(), Verdict::Send, "absent");
    world.state.table_set("rules", "tea", "DENY").unwrap();
    assert_eq!(world.verdict(), REFUSED);
    let mut entries = Vec::new();
    world.state.each_entry(0, |key, value| entries.push((key.to_vec(), value.to_vec())));
    let [(key, value)] = entries.as_slice() else { panic!("{entries:?}") };
    let mut tampered = value.clone();
    tampered[0] = 7;
    assert!(world.state.set_entry(0, key, &tampered));
    assert_eq!(world.verdict(), Verdict::Drop(Reason::PolicyDrop));
}

#[test]
fn what_is_absent_goes_where_the_text_says() {
    let judge = |absent: &str| {
        let text = format!(
            "guests()\nstate:\n    known: table(string(15) -> bool)\nguests():\n    match get(known, get(rpc, 'key')):\n        \
             true => send(rpc)\n        {absent} => reject(PERMISSION_DENIED)\n"
        );
        let mut world = World::new(&text, Side::Server, "Get");
        let mut verdicts = vec![world.key("tea").verdict()];
        for value in ["true", "false"] {
            world.state.table_set("known", "tea", value).unwrap();
            verdicts.push(world.verdict());
        }
        verdicts
    };
    for absent in ["false | NONE", "NONE | false", "_"] {
        assert_eq!(judge(absent), [REFUSED, Verdict::Send, REFUSED], "{absent}");
    }
}
