//! Two network namespaces and a veth pair between them.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio},
};

/// One end: its namespace and what is in it. The namespace goes when this is dropped and no thread is in it.
pub struct End {
    namespace: File,
    /// The interface.
    pub interface: &'static str,
    /// Its IPv4 address.
    pub v4: &'static str,
    /// Its IPv6 address.
    pub v6: &'static str,
}

impl End {
    /// Moves the calling thread into this end's namespace.
    pub fn enter(&self) {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("entering a namespace that we have made");
    }
}

/// Makes both ends from the calling thread, which is left in the second one's namespace: use a thread of its own.
/// `None`, with a note, where that is not permitted.
pub fn pair(queues: u32) -> Option<(End, End)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to make network namespaces");
        return None;
    }
    let made = (|| -> io::Result<_> { Ok((namespace()?, namespace()?)) })();
    let (first, second) = match made {
        Ok(both) => both,
        Err(error) => {
            println!("skipped: cannot make network namespaces: {error}");
            return None;
        }
    };
    let a = End { namespace: first, interface: "tfnic-a", v4: "10.97.0.1", v6: "fd97::1" };
    let b = End { namespace: second, interface: "tfnic-b", v4: "10.97.0.2", v6: "fd97::2" };
    a.enter();
    let there = format!("/proc/{}/fd/{}", std::process::id(), b.namespace.as_raw_fd());
    let count = queues.to_string();
    let sizes = ["numtxqueues", &count, "numrxqueues", &count];
    let mut link = vec!["link", "add", a.interface];
    link.extend(sizes);
    link.extend(["type", "veth", "peer", "name", b.interface]);
    link.extend(sizes);
    link.extend(["netns", &there]);
    if let Err(error) = ip(&link) {
        println!("skipped: {error}");
        return None;
    }
    for end in [&a, &b] {
        end.enter();
        let set_up = [
            vec!["link", "set", "lo", "up"],
            vec!["address", "add", "dev", end.interface],
            vec!["-6", "address", "add", "dev", end.interface, "nodad"],
            vec!["link", "set", end.interface, "up"],
        ];
        for (number, mut arguments) in set_up.into_iter().enumerate() {
            let address = format!(
                "{}/{}",
                if number == 1 { end.v4 } else { end.v6 },
                if number == 1 { 24 } else { 64 }
            );
            if number == 1 || number == 2 {
                arguments.push(&address);
            }
            ip(&arguments).expect("setting up an interface that we have made");
        }
    }
    Some((a, b))
}

/// A new namespace, which the calling thread enters.
fn namespace() -> io::Result<File> {
    // SAFETY: only the network namespace changes, on which no memory or descriptor of this thread depends.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    // Otherwise an interface's own address is not used for the first seconds, and IPv6 neighbours not asked for.
    // Without IPv6 there is nothing to set.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
    File::open("/proc/thread-self/ns/net")
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run `ip`: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(format!("`ip {}` failed: {}", arguments.join(" "), text.trim()))
        }
    }
}
