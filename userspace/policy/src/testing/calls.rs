//! Making a case's calls: from what is written to what the evaluator sees, and back to words.

use super::block;
use super::file::{Case, Path, Peer, Response, TestFile, Token, Word};
use super::kernel::{End, Judged, Kernel, Request, Xdp, xdp_tables};
use super::run::Failure;
use crate::{
    CallView, Clock, Compiled, Options, Outcome, PeerView, Place, ResponseView, Side, Source, Start, State,
    TableKind, Tracked, Verdict, compile, notation, sides,
};
use std::collections::{BTreeMap, BTreeSet};
use tollfree_schema::{Manifest, Method};
use tollfree_wire::Code;

/// What the evaluators' random numbers start from, so that a test always ends the same way.
const SEED: u64 = 7;
/// A test's clock starts at 0; a host's has been running for a while.
const START_NS: u64 = 1_000_000_000_000;

/// The policy under test and its tables, while the cases pass.
pub(super) struct World<'a, 'k> {
    policy: &'a Source<'a>,
    schema: &'a Manifest,
    halves: Vec<Half<'k>>,
    now_ns: u64,
}

/// One side's chains.
struct Half<'k> {
    compiled: Compiled,
    state: State,
    tracked: Option<Tracked>,
    /// What runs in front of the engine.
    xdp: Option<Xdp<'k>>,
}

/// Every entry of every table: by table's and entry's name.
pub(super) type Tables = BTreeMap<String, Vec<(String, String)>>;

/// What became of a case's calls.
pub(super) struct Seen<'a> {
    pub method: &'a Method,
    pub verdicts: BTreeMap<String, u64>,
    pub effects: BTreeMap<String, u64>,
    pub responses: BTreeMap<String, u64>,
    pub audited: u32,
    pub places: BTreeSet<String>,
    /// The last call's flat block, as the policy left it.
    pub request: Vec<u8>,
    /// What the last call was answered with by the policy.
    pub answer: Option<Vec<u8>>,
    /// Whether the programs in the kernel have judged any of its calls.
    pub in_kernel: bool,
}

impl<'a, 'k> World<'a, 'k> {
    /// `kernel`: where the server's chains are to run that can; `None`: in the engine.
    pub fn new(
        policy: &'a Source<'a>,
        test: &TestFile,
        schema: &'a Manifest,
        mut kernel: Option<&'k mut dyn Kernel>,
    ) -> Result<World<'a, 'k>, Failure> {
        let mut halves = Vec::new();
        for side in sides(policy) {
            let options = Options { side: Some(side), clock: Clock::Fixed(START_NS), ..Options::default() };
            let mut half = Half::new(compile(policy, schema, options)?, test).map_err(Failure::Test)?;
            if side == Side::Server
                && half.compiled.object.is_some()
                && let Some(kernel) = kernel.take()
            {
                let xdp = Xdp::new(kernel, &half.compiled, &half.state).map_err(Failure::Kernel)?;
                half.xdp = Some(xdp);
            }
            halves.push(half);
        }
        if halves.is_empty() {
            // Says what is wrong with it.
            compile(policy, schema, Options::default())?;
            return Err(Failure::Test("the policy has no chain, so that there is nothing to test".into()));
        }
        // A call leaves before it arrives.
        halves.sort_by_key(|half| half.compiled.side == Side::Server);
        Ok(World { policy, schema, halves, now_ns: START_NS })
    }

    /// Goes to a time on the test's clock.
    pub fn advance(&mut self, at: u64) -> Result<(), String> {
        let now_ns = START_NS.saturating_add(at);
        if now_ns < self.now_ns {
            return Err("its time is before that of a case above it".to_owned());
        }
        let World { policy, schema, halves, .. } = self;
        if now_ns > self.now_ns {
            halves
                .iter_mut()
                .filter_map(|half| half.xdp.as_mut())
                .try_for_each(|xdp| xdp.advance(policy, schema, now_ns))?;
        }
        self.now_ns = now_ns;
        Ok(())
    }

    /// Makes a case's calls.
    pub fn make(&mut self, case: &Case) -> Result<Seen<'a>, String> {
        let method = self.method(&case.method)?;
        let mut seen = Seen {
            method,
            verdicts: BTreeMap::new(),
            effects: BTreeMap::new(),
            responses: BTreeMap::new(),
            audited: 0,
            places: BTreeSet::new(),
            request: Vec::new(),
            answer: None,
            in_kernel: false,
        };
        let mut call = Call::new(case, method, self.now_ns)?;
        let on_path = |half: &&mut Half<'_>| match case.path {
            None | Some(Path::Both) => true,
            Some(Path::Client) => half.compiled.side == Side::Client,
            Some(Path::Server) => half.compiled.side == Side::Server,
        };
        for _ in 0..case.times {
            call.flat = block::build(&method.request, &case.fields)?;
            let mut passed = Vec::new();
            let mut verdict = Verdict::Send;
            for half in self.halves.iter_mut().filter(on_path) {
                seen.places.extend(half.places(method.id));
                let (outcome, in_xdp) = call.request(half, &mut seen)?;
                verdict = outcome.verdict;
                if verdict != Verdict::Send {
                    // Whoever let it pass before learns how it ended; of what ends in the driver the engine hears nothing.
                    if !in_xdp {
                        call.response(half, &mut seen, refusal(verdict), outcome.element)?;
                    }
                    break;
                }
                passed.push(half);
            }
            *seen.verdicts.entry(words(verdict)).or_default() += 1;
            if !case.open {
                let ended = if verdict == Verdict::Send { call.status } else { refusal(verdict) };
                for half in passed.into_iter().rev() {
                    call.response(half, &mut seen, ended, None)?;
                }
            }
        }
        seen.request = call.flat;
        Ok(seen)
    }

    fn method(&self, name: &str) -> Result<&'a Method, String> {
        let path = format!("/{name}");
        self.schema.methods().find(|method| method.path == path).ok_or_else(|| {
            let known: Vec<&str> = self.schema.methods().map(|method| &method.path[1..]).collect();
            format!("the schema has no method {name:?}; it has {}", known.join(", "))
        })
    }

    /// Entries that are not as they are wanted, each with a sentence.
    pub fn table_differences(&self, wanted: &BTreeMap<String, BTreeMap<String, String>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (table, entries) in wanted {
            for (key, value) in entries {
                match self.halves.iter().find_map(|half| half.table_get(table, key)) {
                    None => wrong.push(format!("the policy has no table {table}")),
                    Some(Err(error)) => wrong.push(error),
                    Some(Ok(Some(found))) if found == *value => {}
                    Some(Ok(Some(found))) => wrong.push(format!("{table}[{key}] is {found}, not {value}")),
                    Some(Ok(None)) => wrong.push(format!("{table} has nothing for {key}, not {value}")),
                }
            }
        }
        wrong
    }

    /// What the tables hold in which two runs of the same calls can be compared: not those that evict, which the kernel
    /// does a little earlier.
    pub fn tables(&self) -> Result<Tables, String> {
        self.halves.iter().map(Half::tables).try_fold(Tables::new(), |mut all, tables| {
            all.extend(tables?);
            Ok(all)
        })
    }

    /// Whether the policy does the same on the same calls each time: no chances in it.
    pub fn is_repeatable(&self) -> bool {
        self.halves.iter().all(|half| !half.compiled.chances)
    }
}

impl<'k> Half<'k> {
    fn new(mut compiled: Compiled, test: &TestFile) -> Result<Half<'k>, String> {
        let mut state = compiled.program.new_state();
        state.seed(SEED);
        for (table, entries) in &test.tables {
            if !compiled.tables.iter().any(|spec| spec.name == *table) {
                continue;
            }
            for (key, value) in entries {
                state.table_set(table, key, value).map_err(|error| error.to_string())?;
            }
        }
        let mut bad = None;
        compiled.program.set_keys(|name| {
            let text = test.keys.get(name)?;
            let key = crate::table::unhex(text).and_then(|bytes| bytes.try_into().ok());
            if key.is_none() {
                bad = Some(format!("key {name:?} must be 64 hexadecimal digits"));
            }
            key
        });
        bad.map_or(Ok(()), Err)?;
        // What is in them at first is not written through, but copied.
        state.take_changes(|_| {});
        Ok(Half { compiled, state, tracked: None, xdp: None })
    }

    /// A table from where it is used: `None` where there is none of this name.
    fn table_get(&self, table: &str, key: &str) -> Option<Result<Option<String>, String>> {
        if let Some(xdp) = &self.xdp
            && let Some((_, spec)) = xdp_tables(&self.compiled).find(|(_, spec)| spec.name == table)
        {
            return Some(xdp.table_get(spec, key));
        }
        match self.state.table_get(table, key) {
            Err(crate::TableError::Unknown { .. }) => None,
            found => Some(found.map_err(|error| error.to_string())),
        }
    }

    fn tables(&self) -> Result<Tables, String> {
        let mut tables = Tables::new();
        for (at, spec) in
            self.compiled.tables.iter().enumerate().filter(|(_, spec)| spec.kind != TableKind::Lru)
        {
            let entries = match &self.xdp {
                Some(xdp) if xdp_tables(&self.compiled).any(|(in_xdp, _)| in_xdp == at) => {
                    xdp.table_dump(spec)?
                }
                _ => self.state.table_dump(&spec.name).map_err(|error| error.to_string())?,
            };
            // What was never added to is as good as 0.
            let entries =
                entries.into_iter().filter(|(_, value)| spec.kind != TableKind::Counter || value != "0");
            tables.insert(spec.name.clone(), entries.collect());
        }
        Ok(tables)
    }

    /// What the engine has changed goes to the maps.
    fn write_through(&mut self) -> Result<(), String> {
        let Half { compiled, state, xdp, .. } = self;
        xdp.as_mut().map_or(Ok(()), |xdp| xdp.write_through(compiled, state))
    }

    /// Where the elements are that judge a method's requests.
    fn places(&self, method: u32) -> BTreeSet<String> {
        let elements = self.compiled.explain.elements.iter();
        let judging =
            elements.filter(|element| element.methods.as_ref().is_none_or(|all| all.contains(&method)));
        judging.map(|element| place_name(element.place).to_owned()).collect()
    }
}

/// A case's call, with everything borrowed views need.
struct Call<'c> {
    case: &'c Case,
    method: &'c Method,
    now_ns: u64,
    flat: Vec<u8>,
    address: [u8; 16],
    named: Vec<(String, String)>,
    metadata: Vec<(&'c str, &'c str)>,
    deadline_ns: Option<u64>,
    idle_ns: u64,
    status: Code,
    latency_ns: u64,
    /// Which backend the policy has chosen.
    routed: Option<u32>,
}

impl<'c> Call<'c> {
    fn new(case: &'c Case, method: &'c Method, now_ns: u64) -> Result<Call<'c>, String> {
        let Case { peer, session, deadline, metadata, response, .. } = case;
        let Response { status, latency, .. } = response;
        let address = peer.address.as_deref().unwrap_or("10.0.0.1");
        Ok(Call {
            case,
            method,
            now_ns,
            flat: Vec::new(),
            address: notation::address(address).ok_or_else(|| format!("{address:?} is no address"))?,
            named: named(peer),
            metadata: metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            deadline_ns: deadline.as_deref().map(time).transpose()?,
            idle_ns: session.idle_limit.as_deref().map(time).transpose()?.unwrap_or(0),
            status: match status.as_deref() {
                None => Code::Ok,
                Some(name) => Code::from_name(name)
                    .ok_or_else(|| format!("{name:?} is no status, such as UNAVAILABLE"))?,
            },
            latency_ns: latency.as_deref().map(time).transpose()?.unwrap_or(0),
            routed: None,
        })
    }

    /// Judges the request on one side; says whether it ended in XDP, too.
    fn request(&mut self, half: &mut Half<'_>, seen: &mut Seen<'_>) -> Result<(Outcome, bool), String> {
        let start = match self.in_xdp(half, seen)? {
            None => Start::Chain,
            Some(End::Rest) => Start::AfterXdp,
            Some(End::Sent) => return Ok((Outcome::default(), true)),
            Some(End::Ended(verdict)) => return Ok((Outcome { verdict, ..Outcome::default() }, true)),
        };
        let outcome = self.in_engine(half, start, seen);
        half.write_through()?;
        Ok((outcome, false))
    }

    /// Runs what runs in XDP; `None`: nothing does.
    fn in_xdp(&mut self, half: &mut Half<'_>, seen: &mut Seen<'_>) -> Result<Option<End>, String> {
        let Half { compiled, xdp: Some(xdp), .. } = half else { return Ok(None) };
        let Call { case, method, now_ns, flat, address, named, deadline_ns, idle_ns, .. } = self;
        let size = case.size.unwrap_or(flat.len() as u32);
        let request = Request {
            method,
            flat,
            size,
            deadline_ns: *deadline_ns,
            port: case.port,
            peer: &peer_view(case, *address, named),
            now_ns: *now_ns,
            idle_ns: *idle_ns,
        };
        let Judged { end, flat, audited } = xdp.judge(compiled, &request)?;
        seen.in_kernel = true;
        seen.audited += audited;
        match end {
            End::Ended(Verdict::Answer) => seen.answer = Some(flat),
            End::Ended(_) => {}
            End::Sent | End::Rest => self.flat = flat,
        }
        Ok(Some(end))
    }

    /// Judges the request by the chain, or the rest of it.
    fn in_engine(&mut self, half: &mut Half<'_>, start: Start, seen: &mut Seen<'_>) -> Outcome {
        let mut tracked = *half.tracked.get_or_insert(Tracked {
            last_seen_ns: self.now_ns,
            idle_ns: self.idle_ns,
            calls: 0,
        });
        let program = half.compiled.program.clone();
        let backends = self.backends(half);
        let outcome = self.with_view(&backends, Some(&mut tracked), |view, case| {
            view.start = start;
            let mut outcome = program.judge(&mut half.state, view);
            while let (Verdict::Ask(asked), Some(paused)) = (outcome.verdict, outcome.paused.take()) {
                let name = program.authorisers().get(usize::from(asked)).map_or("", String::as_str);
                let answer = match case.authorisers.get(name) {
                    None => break,
                    Some(Word::Yes) => Some(true),
                    Some(Word::No) => Some(false),
                    Some(Word::Unreachable) => None,
                };
                outcome = program.resume(&mut half.state, view, *paused, answer);
            }
            outcome.clone()
        });
        half.tracked = Some(tracked);
        if let Some(route) = outcome.route {
            let count = backends.get(route.selector).copied().unwrap_or(0);
            self.routed = route.index.map(|index| (index % u64::from(count.max(1))) as u32);
        }
        note(half, &outcome, &backends, seen);
        if outcome.verdict == Verdict::Answer {
            seen.answer = half.state.answer().map(|answer| answer.flat.to_vec());
        }
        outcome
    }

    /// Judges how the call ended. `ended_at`: the element that ended it, if one of these did.
    fn response(
        &mut self,
        half: &mut Half<'_>,
        seen: &mut Seen<'_>,
        status: Code,
        ended_at: Option<usize>,
    ) -> Result<(), String> {
        if !half.compiled.program.has_response() {
            return Ok(());
        }
        let program = half.compiled.program.clone();
        let backends = self.backends(half);
        let served = ended_at.is_none();
        let fields = if served { self.case.response.fields.clone() } else { BTreeMap::new() };
        let mut flat = block::build(&self.method.response, &fields)?;
        let (latency_ns, routed) = (self.latency_ns, self.routed);
        let (layout, backend) = (self.method.response.fingerprint, self.case.response.backend.or(routed));
        let outcome = self.with_view(&backends, None, |view, _| {
            let size = flat.len() as u32;
            let mut response = ResponseView {
                status,
                layout,
                flat: &mut flat,
                size,
                latency_ns,
                backend,
                attempt: 1,
                ended_at,
            };
            program.judge_response(&mut half.state, view, &mut response).clone()
        });
        note(half, &outcome, &backends, seen);
        half.write_through()?;
        if served {
            *seen.responses.entry(words(outcome.verdict)).or_default() += 1;
        }
        Ok(())
    }

    fn with_view<R>(
        &mut self,
        backends: &[u32],
        session: Option<&mut Tracked>,
        then: impl FnOnce(&mut CallView<'_>, &Case) -> R,
    ) -> R {
        let Call { case, method, now_ns, flat, address, named, metadata, deadline_ns, .. } = self;
        let peer = peer_view(case, *address, named);
        let size = case.size.unwrap_or(flat.len() as u32);
        let mut view = CallView {
            method: method.id,
            layout: method.request.fingerprint,
            flat,
            size,
            deadline_ns: *deadline_ns,
            port: case.port,
            now_ns: *now_ns,
            session,
            peer: &peer,
            metadata,
            backends,
            start: Start::Chain,
        };
        then(&mut view, case)
    }

    fn backends(&self, half: &Half<'_>) -> Vec<u32> {
        let selectors = half.compiled.program.selectors().iter();
        selectors.map(|name| self.case.backends.get(name).copied().unwrap_or(1)).collect()
    }
}

fn peer_view<'v>(case: &'v Case, address: [u8; 16], named: &'v [(String, String)]) -> PeerView<'v> {
    let Peer { identity, namespace, token, sessions, .. } = &case.peer;
    PeerView {
        address,
        identity: identity.as_deref(),
        namespace: namespace.as_deref(),
        token: token.map(|token| token == Token::Valid),
        sessions: sessions.unwrap_or(1),
        named,
    }
}

/// Counts an outcome's effects.
fn note(half: &mut Half<'_>, outcome: &Outcome, backends: &[u32], seen: &mut Seen<'_>) {
    let selectors = half.compiled.program.selectors();
    let name = |selector: usize| selectors.get(selector).map_or("", String::as_str);
    let mut effects = Vec::new();
    if outcome.delay_ns > 0 {
        effects.push(format!("delay {}", notation::format_duration(outcome.delay_ns)));
    }
    if let Some(timeout_ns) = outcome.timeout_ns {
        effects.push(format!("timeout {}", notation::format_duration(timeout_ns)));
    }
    if let Some(route) = outcome.route {
        let count = u64::from(backends.get(route.selector).copied().unwrap_or(0).max(1));
        let index = route.index.map(|index| format!(" {}", index % count)).unwrap_or_default();
        effects.push(format!("route {}{index}", name(route.selector)));
    }
    effects.extend(outcome.mirrors().map(|selector| format!("mirror {}", name(selector))));
    if let Some(eject) = outcome.eject {
        effects.push(format!("eject {}", notation::format_duration(eject.duration_ns)));
    }
    half.state.take_log(|_| effects.push("log".to_owned()));
    for effect in effects {
        *seen.effects.entry(effect).or_default() += 1;
    }
    seen.audited += outcome.audited;
}

fn named(peer: &Peer) -> Vec<(String, String)> {
    let Peer { label, claim, issuer, audience, .. } = peer;
    let labels = label.iter().map(|(key, value)| (format!("label.{key}"), value.clone()));
    let claims = claim.iter().map(|(key, value)| (format!("claim.{key}"), value.clone()));
    let issuer = issuer.iter().map(|issuer| ("issuer".to_owned(), issuer.clone()));
    let audience = audience.iter().map(|audience| ("audience".to_owned(), audience.clone()));
    labels.chain(claims).chain(issuer).chain(audience).collect()
}

fn time(text: &str) -> Result<u64, String> {
    notation::duration(text).ok_or_else(|| format!("{text:?} is no time, such as 250ms"))
}

fn place_name(place: Place) -> &'static str {
    match place {
        Place::XdpIngress => "xdp",
        Place::Session => "session",
        Place::Engine => "engine",
    }
}

/// How a call ended that a policy ended.
fn refusal(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Send | Verdict::Answer => Code::Ok,
        Verdict::Reject(code, _) => code,
        Verdict::Drop(_) | Verdict::Retry | Verdict::Ask(_) => Code::Unavailable,
    }
}

fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Send => "send".to_owned(),
        Verdict::Drop(_) => "drop".to_owned(),
        Verdict::Reject(code, _) => format!("reject {}", code.name()),
        Verdict::Answer => "answer".to_owned(),
        Verdict::Retry => "retry".to_owned(),
        Verdict::Ask(_) => "ask".to_owned(),
    }
}
