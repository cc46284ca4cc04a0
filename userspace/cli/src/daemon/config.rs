//! The daemon's configuration file: what can be set, in which unit, and the defaults. Not here: acting on it.

use crate::exit::refused;
use crate::paths;
use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tollfree_loader::DEFAULT_PORTS;
use tollfree_ring::Geometry;
use tollfree_wire::frame::Ports;
use tollfree_wire::maps::IDENTITY_MAX;

/// How packets reach the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Kernel sockets: no privileges; policies run in the engine.
    #[default]
    Udp,
    /// AF_XDP on one interface; policies run in the NIC's driver.
    Afxdp,
}

impl Backend {
    /// The name in files and in output.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Udp => "udp",
            Backend::Afxdp => "afxdp",
        }
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the interface's driver; refused where the driver cannot.
    #[default]
    Native,
    /// In the network stack: works on any interface, slower.
    Generic,
}

/// How the poll loop waits for work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Never sleeps: for a core of its own.
    Busy,
    /// Spins, yields, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Sleep,
}

/// Which calls a policy judges in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Calls that arrive at services on this host.
    #[default]
    Server,
    /// Calls that leave clients on this host.
    Client,
}

impl Side {
    /// The name in files and in output.
    pub fn name(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Client => "client",
        }
    }
}

/// Which host serves a service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Full name of the service, such as `demo.Hash`.
    pub service: String,
    /// The engine that serves it: address and UDP port.
    pub peer: SocketAddr,
}

/// A policy in force from the start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The policy; relative to the configuration file.
    pub file: PathBuf,
    /// Its schema, a `.proto` file or a layout manifest; relative to the configuration file.
    pub schema: PathBuf,
    /// Which calls it judges; those that it has chains for unless set.
    #[serde(default)]
    pub at: Option<Side>,
}

/// Who the hosts of a network are, as policies see them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityRule {
    /// The hosts: an address, or a network such as `10.0.0.0/24`. Where networks overlap, the smallest counts.
    pub address: Cidr,
    /// `get(peer, 'identity')`.
    pub name: Option<String>,
    /// `get(peer, 'namespace')`.
    pub namespace: Option<String>,
    /// `get(peer, 'label.KEY')`, by key.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// One of its addresses.
    pub address: IpAddr,
    /// Leading bits that all its addresses share.
    pub bits: u8,
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Cidr, D::Error> {
        let text = String::deserialize(input)?;
        let wrong = || {
            serde::de::Error::custom(format!(
                "{text:?} is neither an address nor a network such as \"10.0.0.0/24\""
            ))
        };
        let (address, bits) =
            text.split_once('/').map_or((&text[..], None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most { Err(wrong()) } else { Ok(Cidr { address, bits }) }
    }
}

/// A key of encryption.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Secret, D::Error> {
        let text = String::deserialize(input)?;
        // Not quoted: an error must not show a key.
        let wrong =
            || serde::de::Error::custom("a key is 64 hexadecimal digits, as `openssl rand -hex 32` prints");
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
        let (pairs, rest) = digits.as_deref().ok_or_else(wrong)?.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        match bytes.try_into() {
            Ok(key) if rest.is_empty() => Ok(Secret(key)),
            _ => Err(wrong()),
        }
    }
}

/// The configuration file. Every key is optional, unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How packets reach the wire; `udp`.
    pub backend: Backend,
    /// Network interface; `afxdp` needs it.
    pub interface: Option<String>,
    /// How XDP is attached; `native`.
    pub mode: XdpMode,
    /// Whether a foreign XDP program on the interface is replaced; no.
    pub force: bool,
    /// Address and UDP port of the `udp` backend; `0.0.0.0:7400`.
    pub listen: Option<SocketAddr>,
    /// UDP port of the `afxdp` backend, which peers call; 7400.
    pub port: Option<u16>,
    /// How many UDP ports in a row are Tollfree's on the `afxdp` backend, from `port` on; 16. Calls leave from one of them by
    /// peer, so that the sessions of a host are spread over receive queues.
    pub ports: Option<u16>,
    /// Frames of packet memory per receive queue of the `afxdp` backend, a power of two; 4096.
    pub frames: u32,
    /// Where sockets and the records of attached interfaces are.
    pub state_dir: PathBuf,
    /// Where BPF programs and maps are pinned.
    pub bpffs: PathBuf,
    /// The compiled XDP programs; searched for when absent.
    pub object: Option<PathBuf>,
    /// Secret shared by all hosts; authenticates sessions. Empty: sessions are only guarded against off-path spoofing.
    pub psk: String,
    /// How long a session may stay unused before it ends, such as `60s`.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How the poll loop waits; `adaptive`.
    pub wait: Wait,
    /// The socket that applications attach to; `<state_dir>/app.sock`.
    pub app_socket: Option<PathBuf>,
    /// Its permissions, in octal; `"0666"`: every local user may attach.
    #[serde(deserialize_with = "octal")]
    pub app_socket_mode: u32,
    /// Memory for long messages to and from each application, in MiB each way, a power of two; 64. Taken while in use.
    pub app_long_mib: u32,
    /// Memory for long messages that arrive from other hosts, in MiB, half of it for any one host; 64. Taken while in use.
    pub reassembly_mib: u32,
    /// Which host serves which service.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// Who the hosts of a network are.
    #[serde(rename = "identity")]
    pub identities: Vec<IdentityRule>,
    /// Keys that policies encrypt and decrypt with, by name.
    pub keys: BTreeMap<String, Secret>,
    /// Policy in force from the start.
    pub policy: Option<PolicyFile>,
}

/// Whether ports in a row can be a host's.
///
/// # Errors
/// A sentence: there is none, or they go on above the last port that there is.
pub fn check_ports(ports: Ports) -> Result<(), String> {
    let Ports { first, count } = ports;
    let last = u32::from(first) + u32::from(count.saturating_sub(1));
    match (count, last) {
        (0, _) => Err("`ports` is at least 1".to_owned()),
        (_, 65_536..) => {
            Err(format!("{count} ports from {first} on end at {last}; the last UDP port is 65535"))
        }
        _ => Ok(()),
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            backend: Backend::default(),
            interface: None,
            mode: XdpMode::default(),
            force: false,
            listen: None,
            port: None,
            ports: None,
            frames: 4096,
            state_dir: PathBuf::from(paths::STATE_DIR),
            bpffs: PathBuf::from(paths::BPFFS),
            object: None,
            psk: String::new(),
            idle_timeout: Duration::from_secs(60),
            wait: Wait::default(),
            app_socket: None,
            app_socket_mode: 0o666,
            app_long_mib: 64,
            reassembly_mib: 64,
            routes: Vec::new(),
            identities: Vec::new(),
            keys: BTreeMap::new(),
            policy: None,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// By file, line and key.
    pub fn read(file: &Path) -> Result<Config> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut config = Config::parse(&text).map_err(|error| match error.at {
            Some((line, column)) => refused(format!("{}:{line}:{column}: {}", file.display(), error.text)),
            None => refused(format!("{}: {}", file.display(), error.text)),
        })?;
        if let Some(policy) = &mut config.policy {
            let folder = file.parent().unwrap_or(Path::new("."));
            policy.file = folder.join(&policy.file);
            policy.schema = folder.join(&policy.schema);
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<Config, Mistake> {
        let config: Config = toml::from_str(text).map_err(|error| Mistake {
            at: error.span().map(|span| place(text, span.start)),
            text: sentence(text, &error),
        })?;
        config.check().map_err(|(key, message)| Mistake { at: find_key(text, key), text: message })?;
        Ok(config)
    }

    /// What the keys' types cannot say; an error names the key at fault.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.backend == Backend::Afxdp && self.interface.is_none() {
            return Err(("backend", r#"backend = "afxdp" needs `interface`"#.into()));
        }
        if self.backend == Backend::Udp && self.interface.is_some() {
            return Err((
                "interface",
                r#"`interface` belongs to backend = "afxdp"; with "udp" set `listen`"#.into(),
            ));
        }
        if self.backend == Backend::Udp && self.port.is_some() {
            return Err(("port", r#"`port` belongs to backend = "afxdp"; with "udp" set `listen`"#.into()));
        }
        if self.backend == Backend::Afxdp && self.listen.is_some() {
            return Err(("listen", r#"`listen` belongs to backend = "udp"; with "afxdp" set `port`"#.into()));
        }
        if self.backend == Backend::Udp && self.ports.is_some() {
            let message = r#"`ports` belongs to backend = "afxdp"; "udp" has the one of `listen`"#;
            return Err(("ports", message.into()));
        }
        check_ports(self.ports()).map_err(|message| ("ports", message))?;
        if self.port == Some(0) {
            return Err(("port", "`port` is a UDP port from 1 to 65535".into()));
        }
        if !self.frames.is_power_of_two() || !(64..=65_536).contains(&self.frames) {
            return Err((
                "frames",
                format!("`frames` is a power of two from 64 to 65536, not {}", self.frames),
            ));
        }
        if !self.app_long_mib.is_power_of_two() || !(1..=1024).contains(&self.app_long_mib) {
            return Err((
                "app_long_mib",
                format!("`app_long_mib` is a power of two from 1 to 1024, not {}", self.app_long_mib),
            ));
        }
        if !(1..=65_536).contains(&self.reassembly_mib) {
            return Err((
                "reassembly_mib",
                format!("`reassembly_mib` is between 1 and 65536, not {}", self.reassembly_mib),
            ));
        }
        if self.idle_timeout < Duration::from_millis(100)
            || self.idle_timeout > Duration::from_secs(24 * 3600)
        {
            return Err(("idle_timeout", "`idle_timeout` is between 100ms and 24h".into()));
        }
        for (at, route) in self.routes.iter().enumerate() {
            if self.routes[..at].iter().any(|earlier| earlier.service == route.service) {
                return Err(("route", format!("`route` names service {} twice", route.service)));
            }
        }
        for IdentityRule { name, namespace, .. } in &self.identities {
            for text in [name, namespace].into_iter().flatten() {
                if text.is_empty() || text.len() > IDENTITY_MAX {
                    let message =
                        format!("`name` and `namespace` have 1 to {IDENTITY_MAX} bytes, unlike {text:?}");
                    return Err(("identity", message));
                }
            }
        }
        Ok(())
    }

    /// The UDP ports of whichever backend is chosen.
    pub fn ports(&self) -> Ports {
        match self.backend {
            Backend::Udp => self.listen().port().into(),
            Backend::Afxdp => Ports {
                first: self.port.unwrap_or(DEFAULT_PORTS.first),
                count: self.ports.unwrap_or(DEFAULT_PORTS.count),
            },
        }
    }

    /// The address of the `udp` backend.
    pub fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORTS.first)))
    }

    /// What is shared with each application.
    pub fn rings(&self) -> Geometry {
        Geometry { long_bytes: self.app_long_mib << 20, ..Geometry::default() }
    }

    /// The socket that applications attach to.
    pub fn app_socket(&self) -> PathBuf {
        self.app_socket.clone().unwrap_or_else(|| self.state_dir.join(paths::APP_SOCKET))
    }

    /// The socket that commands speak to.
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir.join(paths::ADMIN_SOCKET)
    }
}

/// What is wrong with a file's text, and at which line and column, from 1.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    at: Option<(usize, usize)>,
    text: String,
}

/// The parser's message on one line, with the key that it is about where the message does not name it.
fn sentence(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    let Some(span) = error.span() else { return message };
    let line_start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) if !message.contains(&format!("`{}`", key.trim())) && !key.trim().is_empty() => {
            format!("`{}`: {message}", key.trim())
        }
        _ => message,
    }
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Where a key or table is set.
fn find_key(text: &str, key: &str) -> Option<(usize, usize)> {
    let sets_key = |line: &str| {
        let line = line.trim_start_matches([' ', '\t', '[']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    text.lines().position(sets_key).map(|index| (index + 1, 1))
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is not a duration such as \"60s\" or \"5m\""))
    })
}

fn octal<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    let text = String::deserialize(input)?;
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(serde::de::Error::custom(format!("{text:?} is not a file mode such as \"0660\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
backend = "afxdp"
interface = "eth0"
mode = "generic"
force = true
port = 7401
ports = 4
frames = 8192
state_dir = "/tmp/s"
bpffs = "/sys/fs/bpf/x"
object = "/tmp/o"
psk = "secret"
idle_timeout = "5s"
wait = "busy"
app_socket = "/tmp/a.sock"
app_socket_mode = "0660"
app_long_mib = 128
reassembly_mib = 96
[[route]]
service = "demo.Hash"
peer = "10.77.0.2:7400"
[[identity]]
address = "10.0.0.0/24"
name = "frontend"
namespace = "shop"
labels = { app = "a" }
[keys]
notes = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
[policy]
file = "f.policy"
schema = "f.proto"
at = "client"
"#;
        let config = Config::parse(text).unwrap();
        assert_eq!(
            (config.backend, config.mode, config.wait),
            (Backend::Afxdp, XdpMode::Generic, Wait::Busy)
        );
        assert_eq!((config.ports(), config.app_socket_mode), (Ports { first: 7401, count: 4 }, 0o660));
        assert_eq!((config.app_long_mib, config.reassembly_mib), (128, 96));
        assert_eq!(config.idle_timeout, Duration::from_secs(5));
        assert_eq!(config.routes[0].peer.port(), 7400);
        assert_eq!(config.identities[0].address, Cidr { address: [10, 0, 0, 0].into(), bits: 24 });
        assert_eq!(config.identities[0].labels["app"], "a");
        assert_eq!(config.keys["notes"].0[31], 31);
        assert!(!format!("{:?}", config.keys).contains("31"), "keys do not show");
        assert_eq!(config.policy.unwrap().at, Some(Side::Client));
    }

    #[test]
    fn the_example_shows_every_key_and_the_defaults() {
        let example = include_str!("../../tollfree.example.toml");
        assert_eq!(Config::parse(example).unwrap(), Config::default());
        let keys = example.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" = "));
        let shown: Vec<&str> = keys.map(|(key, _)| key).collect();
        let text: Vec<&str> = example
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| {
                line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
            })
            .filter(|line| !line.starts_with("listen")) // excludes `interface` and `port`
            .collect();
        let config =
            Config::parse(&text.join("\n").replace(r#"backend = "udp""#, r#"backend = "afxdp""#)).unwrap();
        assert_eq!((config.app_socket(), config.ports()), (Config::default().app_socket(), DEFAULT_PORTS));
        let debug = format!("{:#?}", Config::default());
        let fields = debug.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        for (field, _) in fields
            .filter(|(field, _)| !field.starts_with(' ') && !["routes", "identities", "keys"].contains(field))
        {
            assert!(shown.contains(&field) || field == "policy", "{field} is not in the example");
        }
    }

    #[test]
    fn mistakes_name_line_and_key() {
        let cases = [
            ("backend = \"udp\"\nbackand = 1\n", (2, 1), "unknown field `backand`"),
            ("\nport = \"x\"\n", (2, 8), "`port`: invalid type"),
            ("backend = \"afxdp\"\n", (1, 1), "needs `interface`"),
            ("interface = \"eth0\"\n", (1, 1), "belongs to backend"),
            ("idle_timeout = \"soon\"\n", (1, 16), "`idle_timeout`: \"soon\" is not a duration"),
            ("app_socket_mode = \"rw\"\n", (1, 19), "is not a file mode"),
            ("[[route]]\nservice = \"a\"\npeer = \"nowhere\"\n", (3, 8), "`peer`: "),
            ("[policy]\nfile = \"a\"\n", (1, 1), "missing field `schema`"),
            ("[[identity]]\naddress = \"10.0.0.0/33\"\n", (2, 11), "is neither an address nor a network"),
            ("[[identity]]\naddress = \"::/0\"\nnames = \"a\"\n", (3, 1), "unknown field `names`"),
            ("[[identity]]\naddress = \"::1\"\nname = \"\"\n", (1, 1), "have 1 to 63 bytes"),
            ("[keys]\nnotes = \"00ff\"\n", (2, 9), "`notes`: a key is 64 hexadecimal digits"),
            ("wait = \"often\"\n", (1, 8), "`wait`: unknown variant `often`, expected"),
            ("frames = 1000\n", (1, 1), "power of two"),
            ("ports = 4\n", (1, 1), "belongs to backend"),
            ("backend = \"afxdp\"\ninterface = \"a\"\nport = 65530\nports = 7\n", (4, 1), "end at 65536"),
            ("app_long_mib = 48\n", (1, 1), "power of two"),
            ("reassembly_mib = 0\n", (1, 1), "between 1 and 65536"),
        ];
        for (text, at, message) in cases {
            let mistake = Config::parse(text).unwrap_err();
            assert_eq!(mistake.at, Some(at), "{text}: {mistake:?}");
            assert!(mistake.text.contains(message), "{text}: {mistake:?}");
            assert!(!mistake.text.contains('\n'), "{mistake:?}");
        }
    }
}
