//! The command line: every command, option and its help text.

use crate::daemon::config::{Side, XdpMode};
use crate::exit;
use crate::output::Output;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use tollfree_loader::DEFAULT_PORTS;

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "tollfree",
    version,
    about = "RPC whose policies run in the NIC driver: the daemon, and the commands that steer it",
    after_help = exit::HELP,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 110
)]
pub struct Cli {
    /// Where sockets and the records of attached interfaces are [default: /run/tollfree]
    #[arg(
        long,
        global = true,
        hide_env = true,
        env = "TOLLFREE_STATE_DIR",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,
    /// Where BPF programs and maps are pinned [default: /sys/fs/bpf/tollfree]
    #[arg(
        long,
        global = true,
        hide_env = true,
        env = "TOLLFREE_BPFFS",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub bpffs: Option<PathBuf>,
    /// Log more to the standard error; twice for everything. RUST_LOG overrides it
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the daemon: attach applications, carry their calls
    ///
    /// Ready when both sockets exist. Logs to the standard error. Ends cleanly on SIGINT or SIGTERM; attached XDP
    /// programs stay (with their policy in force) until `tollfree iface detach` or `tollfree clean`.
    Run(Run),
    /// Say whether this host can run Tollfree, and what to do where it cannot
    Check(Check),
    /// Show the daemon, its applications, sessions and counters, and the attached interfaces
    Status(Output),
    /// Attach XDP programs to interfaces, and show them
    #[command(subcommand, arg_required_else_help = true)]
    Iface(Iface),
    /// Check, explain and apply policies; look into and change their tables
    #[command(subcommand, arg_required_else_help = true)]
    Policy(Policy),
    /// Compile schemas, and check that a change keeps the wire compatible
    #[command(subcommand, arg_required_else_help = true)]
    Schema(Schema),
    /// Look at the XDP programs themselves
    #[command(subcommand, arg_required_else_help = true)]
    Program(Program),
    /// Detach everything from every interface, and remove pins, records and dead sockets
    Clean(Output),
}

/// `tollfree run`
#[derive(Args, Debug)]
pub struct Run {
    /// Configuration file (TOML); without one: the udp backend on 0.0.0.0:7400
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `tollfree check`
#[derive(Args, Debug)]
pub struct Check {
    /// The interface that the afxdp backend is to use
    #[arg(long = "iface", value_name = "INTERFACE")]
    pub interface: Option<String>,
    /// Also check this configuration file, and the interface it names
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The compiled XDP programs; searched for when absent
    #[arg(long, env = "TOLLFREE_OBJECT", hide_env = true, value_name = "FILE")]
    pub object: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// `tollfree iface …`
#[derive(Subcommand, Debug)]
pub enum Iface {
    /// Load the XDP programs and attach them to an interface
    Attach(Attach),
    /// Take the XDP programs off an interface, policy and all
    Detach {
        /// The interface
        interface: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the interfaces with XDP programs of Tollfree
    List(Output),
}

/// `tollfree iface attach`
#[derive(Args, Debug)]
pub struct Attach {
    /// The interface
    pub interface: String,
    /// Where in the kernel the program runs
    #[arg(long, value_enum, default_value_t)]
    pub mode: XdpMode,
    /// Replace an XDP program that is not Tollfree's
    #[arg(long)]
    pub force: bool,
    /// UDP port of Tollfree on this host
    #[arg(long, default_value_t = DEFAULT_PORTS.first, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// How many ports in a row are Tollfree's, from that one on: what it calls from
    #[arg(long, default_value_t = DEFAULT_PORTS.count, value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: u16,
    /// The compiled XDP programs; searched for when absent
    #[arg(long, env = "TOLLFREE_OBJECT", hide_env = true, value_name = "FILE")]
    pub object: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// A policy and its schema.
#[derive(Args, Debug, Clone)]
pub struct PolicyInput {
    /// The policy
    pub file: PathBuf,
    /// Its schema: a .proto file, or a layout manifest from `tollfree schema compile`
    #[arg(short, long, value_name = "FILE")]
    pub schema: PathBuf,
    /// Folder to search for imports of the schema; may be repeated
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    pub includes: Vec<PathBuf>,
}

/// Which policy is meant.
#[derive(Args, Debug, Clone)]
pub struct Target {
    /// Act on this interface's XDP; no daemon is needed
    #[arg(long = "iface", value_name = "INTERFACE")]
    pub interface: Option<String>,
    /// Which of the daemon's two policies: on calls that arrive here, or on calls that leave
    #[arg(long, value_enum, default_value_t, conflicts_with = "interface")]
    pub at: Side,
}

/// What the compiler can print of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Emit {
    /// The typed form: one line per statement, everything inferred written out
    Ir,
    /// The eBPF instructions, with the elements and lines that they come from
    Asm,
}

/// Where the calls of tests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TestPlace {
    /// In the engine's evaluator
    Engine,
    /// By the XDP programs in the kernel, with the engine behind them for what they leave to it
    Xdp,
    /// In both, which must agree
    Both,
}

/// `tollfree policy …`
#[derive(Subcommand, Debug)]
pub enum Policy {
    /// Compile a policy and report mistakes; changes nothing
    Check {
        #[command(flatten)]
        input: PolicyInput,
        /// Also print what the compiler made of it
        #[arg(long, value_enum, value_name = "FORM")]
        emit: Option<Emit>,
        #[command(flatten)]
        output: Output,
    },
    /// Show where each element of a policy runs, why, and what it costs
    Explain {
        #[command(flatten)]
        input: PolicyInput,
        /// Print what the compiler made of it instead
        #[arg(long, value_enum, value_name = "FORM")]
        emit: Option<Emit>,
        #[command(flatten)]
        output: Output,
    },
    /// Show what would change if a policy were applied: elements and their places, tables kept and lost, transport
    Diff {
        #[command(flatten)]
        input: PolicyInput,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Make the calls in a policy's tests and show what becomes of them; changes nothing
    ///
    /// The tests of FILE.policy are in FILE.test beside it; `policies/README.md` describes them. Calls are made in the
    /// engine's evaluator and, where this user may load programs, once more by the XDP programs in the kernel; the same
    /// must come of them. No interface and no daemon is touched.
    Test {
        /// The policies
        #[arg(required = true, value_name = "FILE")]
        policies: Vec<PathBuf>,
        /// The tests of the policy, where they are not in the file beside it
        #[arg(long, value_name = "FILE")]
        tests: Option<PathBuf>,
        /// Folder to search for imports of the schema; may be repeated
        #[arg(short = 'I', long = "include", value_name = "DIR")]
        includes: Vec<PathBuf>,
        /// Where the calls are made; both places where this user may, when absent
        #[arg(long, value_enum, value_name = "PLACE")]
        place: Option<TestPlace>,
        /// The compiled XDP programs; searched for when absent
        #[arg(long, env = "TOLLFREE_OBJECT", hide_env = true, value_name = "FILE")]
        object: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Rewrite policies in their canonical layout
    Fmt {
        /// The policies
        #[arg(required = true, value_name = "FILE")]
        policies: Vec<PathBuf>,
        /// Change nothing; name those that are not in it, and fail
        #[arg(long)]
        check: bool,
    },
    /// Put a policy in force while calls run; tables of unchanged type keep their entries
    ///
    /// Through the daemon, unless --iface names an attached interface. When anything fails, what was in force stays.
    Apply {
        #[command(flatten)]
        input: PolicyInput,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Put the policy in force again that was before the last apply, with its tables
    Rollback {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Take the policy out of force: every call is delivered
    Clear {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Look into and change the tables of the policy in force
    #[command(subcommand, arg_required_else_help = true)]
    Table(Table),
}

/// `tollfree policy table …`
#[derive(Subcommand, Debug)]
pub enum Table {
    /// List the tables, or the entries of one
    List {
        /// The table; all tables when absent
        table: Option<String>,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Show one entry
    Get {
        /// The table
        table: String,
        /// The key: text as it is, numbers in decimal, enums by name, bytes in hexadecimal, networks as 10.0.0.0/8; parts
        /// of one with several are joined by commas, a cell's is empty
        key: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Set one entry; the next call is judged by it
    Set {
        /// The table
        table: String,
        /// The key; parts of one with several are joined by commas, a cell's is empty
        key: String,
        /// The value: numbers in decimal, enums by name
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Delete one entry; a counter starts again at 0
    Delete {
        /// The table
        table: String,
        /// The key
        key: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
}

/// `tollfree schema …`
#[derive(Subcommand, Debug)]
pub enum Schema {
    /// Compile .proto files to a layout manifest (JSON), or to Rust stubs
    Compile {
        /// The .proto files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Folder to search for imports; may be repeated
        #[arg(short = 'I', long = "include", value_name = "DIR")]
        includes: Vec<PathBuf>,
        /// Write the layout manifest to this file; to the standard output when absent
        #[arg(long, value_name = "FILE", conflicts_with = "rust")]
        out: Option<PathBuf>,
        /// Write Rust stubs into this folder instead, one file per package
        #[arg(long, value_name = "DIR")]
        rust: Option<PathBuf>,
    },
    /// Report what in a schema is refused, and with --against what breaks peers that run the older one
    Lint {
        /// The .proto files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Folder to search for imports; may be repeated
        #[arg(short = 'I', long = "include", value_name = "DIR")]
        includes: Vec<PathBuf>,
        /// The older schema: a .proto file, or its layout manifest
        #[arg(long, value_name = "OLD")]
        against: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

/// `tollfree program …`
#[derive(Subcommand, Debug)]
pub enum Program {
    /// Load every program into the kernel, through aya and again through libbpf, and count its instructions
    Verify {
        /// The compiled XDP programs; searched for when absent
        #[arg(long, env = "TOLLFREE_OBJECT", hide_env = true, value_name = "FILE")]
        object: Option<PathBuf>,
        /// Also compile and verify this policy; may be repeated
        #[arg(long = "policy", value_name = "FILE", requires = "schema")]
        policies: Vec<PathBuf>,
        /// The policies' schema
        #[arg(short, long, value_name = "FILE", requires = "policies")]
        schema: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

impl Command {
    /// The form in which the command prints; `None` where it has but one.
    pub fn output(&self) -> Option<Output> {
        let output = match self {
            Command::Status(output) | Command::Clean(output) => output,
            Command::Check(check) => &check.output,
            Command::Iface(
                Iface::Attach(Attach { output, .. }) | Iface::Detach { output, .. } | Iface::List(output),
            ) => output,
            Command::Policy(
                Policy::Check { output, .. }
                | Policy::Explain { output, .. }
                | Policy::Test { output, .. }
                | Policy::Diff { output, .. }
                | Policy::Apply { output, .. }
                | Policy::Rollback { output, .. }
                | Policy::Clear { output, .. }
                | Policy::Table(
                    Table::List { output, .. }
                    | Table::Get { output, .. }
                    | Table::Set { output, .. }
                    | Table::Delete { output, .. },
                ),
            ) => output,
            Command::Schema(Schema::Lint { output, .. }) => output,
            Command::Program(Program::Verify { output, .. }) => output,
            Command::Run(_)
            | Command::Policy(Policy::Fmt { .. })
            | Command::Schema(Schema::Compile { .. }) => return None,
        };
        Some(*output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
