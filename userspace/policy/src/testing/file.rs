//! The file of a policy's tests, as it is written. Unknown keys are mistakes.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A `.test` file: cases that run one after the other against tables that they share.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    /// The schema, from the test file's folder.
    pub schema: String,
    /// What is in the tables before the first case: table, key, value.
    #[serde(default)]
    pub tables: BTreeMap<String, BTreeMap<String, String>>,
    /// Keys of encryption by name, 32 bytes in hexadecimal.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// The cases, in order.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
    /// Entries that tables must have after the last case.
    #[serde(default)]
    pub tables_after: BTreeMap<String, BTreeMap<String, String>>,
}

/// One case: a call, or several that are alike, and what must become of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, for people.
    pub name: String,
    /// `service/method`.
    pub method: String,
    /// Flat fields of the request, in the notation of tables; all others are zero.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// Who calls.
    #[serde(default)]
    pub peer: Peer,
    /// The session's limit.
    #[serde(default)]
    pub session: Session,
    /// When, on the test's clock; the case before's time unless given, at first 0.
    pub at: Option<String>,
    /// Bytes of flat block and body; the flat block's alone unless given.
    pub size: Option<u32>,
    /// Time left; none unless given.
    pub deadline: Option<String>,
    /// The server's port.
    #[serde(default = "port")]
    pub port: u16,
    /// What travels with the call.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// How many backends groups have.
    #[serde(default)]
    pub backends: BTreeMap<String, u32>,
    /// What external authorisers say: `yes`, `no` or `unreachable`. One that is not named has not answered yet.
    #[serde(default)]
    pub authorisers: BTreeMap<String, Word>,
    /// How often the call is made.
    #[serde(default = "once")]
    pub times: u32,
    /// How the calls end that get through: OK and empty unless given.
    #[serde(default)]
    pub response: Response,
    /// The calls that get through do not end in this test.
    #[serde(default)]
    pub open: bool,
    /// Which sides' chains judge it; those that the file has unless given.
    pub path: Option<Path>,
    /// What must become of it: a verdict, or how often there must be which.
    pub expect: Expected,
    /// What must become of its response.
    pub expect_response: Option<String>,
    /// Where it must be judged: `xdp`, `session` or `engine`.
    pub place: Option<Place>,
    /// The request's flat fields when it has got through.
    #[serde(default)]
    pub fields_after: BTreeMap<String, Value>,
    /// The fields that it was answered with.
    #[serde(default)]
    pub answer: BTreeMap<String, Value>,
    /// Effects, such as `delay 50ms`, `timeout 10s`, `route blue`, `route blue 3`, `mirror blue`, `eject 30s` and `log`, and
    /// how often there must be which.
    #[serde(default)]
    pub effects: BTreeMap<String, Count>,
    /// How often an element in audit mode must have refused it.
    pub audited: Option<u32>,
    /// Entries that tables must have now.
    #[serde(default)]
    pub tables_after: BTreeMap<String, BTreeMap<String, String>>,
}

/// A field's value.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// As it is.
    Text(String),
    /// Of a number.
    Number(i64),
    /// Of a bool.
    Bool(bool),
    /// Of a float.
    Float(f64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Number(number) => write!(f, "{number}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Float(number) => write!(f, "{number}"),
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The address; 10.0.0.1 unless given.
    pub address: Option<String>,
    /// The identity.
    pub identity: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// Labels, by key.
    #[serde(default)]
    pub label: BTreeMap<String, String>,
    /// Claims of its token, by name.
    #[serde(default)]
    pub claim: BTreeMap<String, String>,
    /// Who issued its token.
    pub issuer: Option<String>,
    /// Whom its token is for.
    pub audience: Option<String>,
    /// Whether its token is good; without one unless given.
    pub token: Option<Token>,
    /// Sessions of its host, this one included; 1 unless given.
    pub sessions: Option<u32>,
}

/// Whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Token {
    /// It is.
    Valid,
    /// It is not.
    Bad,
}

/// A session's limit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// How long it may idle; for ever unless given.
    pub idle_limit: Option<String>,
}

/// An authoriser's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// The call may pass.
    Yes,
    /// It may not.
    No,
    /// It said nothing.
    Unreachable,
}

/// How a call ends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The status; OK unless given.
    pub status: Option<String>,
    /// Time since the request was judged; 0 unless given.
    pub latency: Option<String>,
    /// Flat fields of the response.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// Which backend answered.
    pub backend: Option<u32>,
}

/// Which sides' chains judge a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Where it leaves.
    Client,
    /// Where it arrives.
    Server,
    /// First the one, then the other.
    Both,
}

/// Where a call is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In the driver, packet by packet.
    Xdp,
    /// Once per session and method.
    Session,
    /// In the engine.
    Engine,
}

/// What must become of a case's calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    /// The same of each.
    Always(String),
    /// How often what.
    Counts(BTreeMap<String, Count>),
}

/// A number, or a range of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Count {
    /// Exactly so many.
    Exactly(u64),
    /// `from..to`, both included.
    Between(String),
}

impl Count {
    /// The least and the most; `None` where it is not written as `from..to`.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        match self {
            Count::Exactly(number) => Some((*number, *number)),
            Count::Between(text) => {
                let (from, to) = text.split_once("..")?;
                Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
            }
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Count::Exactly(number) => write!(f, "{number}"),
            Count::Between(text) => write!(f, "{text:?}"),
        }
    }
}

impl Place {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Place::Xdp => "xdp",
            Place::Session => "session",
            Place::Engine => "engine",
        }
    }
}

impl TestFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, where, for people.
    pub fn parse(text: &str) -> Result<TestFile, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

fn once() -> u32 {
    1
}

fn port() -> u16 {
    7400
}
