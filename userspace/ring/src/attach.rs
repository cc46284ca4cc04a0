//! How an application and the daemon meet: one message each way over a Unix stream socket.
//!
//! Each message is a little-endian `u32` length and a protobuf message. The daemon's answer carries five file descriptors
//! (`SCM_RIGHTS`): application memory, daemon memory, the daemon's for long messages, the application's doorbell, the bell
//! for the daemon.
//! Who the application is, the kernel says (`SO_PEERCRED`). After that nothing more is sent: the socket stays open, and
//! its end is how either side notices the other's.
//!
//! These calls block, with a time limit; they are for the start of a connection, never for a poll loop.

use crate::{Error, Geometry, Handover};
use prost::Message;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The version of the shared memory's layout and of these messages.
pub const VERSION: u32 = 3;
/// How long either side waits for the other's message.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest message, in bytes: descriptor sets are the bulk of it.
const LENGTH_MAX: u32 = 8 << 20;
const HANDOVER_FDS: usize = 5;

/// What an application says first.
#[derive(Clone, PartialEq, Message)]
pub struct Attach {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// What the application calls itself, for people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Encoded `FileDescriptorSet`s of every service it knows.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub descriptor_sets: Vec<Vec<u8>>,
    /// Full names of the services it serves; none for a client.
    #[prost(string, repeated, tag = "4")]
    pub serves: Vec<String>,
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Message)]
struct Attached {
    /// Why not; empty where all is well.
    #[prost(string, tag = "1")]
    error: String,
    #[prost(uint32, tag = "2")]
    slots: u32,
    #[prost(uint32, tag = "3")]
    tx_bytes: u32,
    #[prost(uint32, tag = "4")]
    rx_bytes: u32,
    #[prost(uint32, tag = "5")]
    long_bytes: u32,
}

/// The process at the other end of the socket, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The application's side: connects, introduces itself, receives the rings.
///
/// # Errors
/// Nobody listens on `path`; the daemon refuses ([`Error::Refused`]) or speaks another protocol.
pub fn attach(path: &Path, attach: &Attach) -> Result<(UnixStream, Handover), Error> {
    let mut stream = UnixStream::connect(path)
        .map_err(|source| Error::system("connecting to the daemon's socket", source))?;
    set_patience(&stream, Some(PATIENCE))?;
    let sent = send(&mut stream, attach);
    let handover = match (sent, receive_handover(&stream)) {
        // Refused before everything was sent: the refusal says more than the broken pipe.
        (Err(_), Err(refused @ Error::Refused(_))) => return Err(refused),
        (sent, handover) => {
            sent?;
            handover?
        }
    };
    set_patience(&stream, None)?;
    Ok((stream, handover))
}

/// The daemon's side, first half: who it is and what it wants. Takes at most a few seconds.
///
/// # Errors
/// The message is not one of ours, of another version, or does not come: close the stream.
pub fn accept(stream: &mut UnixStream) -> Result<(Attach, Peer), Error> {
    set_patience(stream, Some(PATIENCE))?;
    let credentials =
        socket_peercred(&*stream).map_err(|errno| Error::system("asking who the application is", errno))?;
    let peer = Peer {
        pid: u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or(0),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    };
    let mut length = [0; 4];
    stream
        .read_exact(&mut length)
        .map_err(|source| Error::system("reading the application's greeting", source))?;
    let length = checked_length(length)?;
    let mut bytes = Vec::new();
    // Grows as bytes come, so that a claimed length costs nothing.
    stream
        .take(u64::from(length))
        .read_to_end(&mut bytes)
        .map_err(|source| Error::system("reading the application's greeting", source))?;
    if bytes.len() != length as usize {
        return Err(Error::Protocol("the application's greeting ends early"));
    }
    let attach = Attach::decode(bytes.as_slice())
        .map_err(|_| Error::Protocol("the application's greeting does not decode"))?;
    if attach.version != VERSION {
        return Err(Error::Protocol("the application speaks another version of the attach protocol"));
    }
    Ok((attach, peer))
}

/// The daemon's side, second half: hands the rings over, or says why not.
///
/// # Errors
/// The application is gone.
pub fn reply(stream: &UnixStream, handover: Result<&Handover, &str>) -> Result<(), Error> {
    let (attached, fds) = match handover {
        Ok(Handover { geometry, app_memory, daemon_memory, long_memory, doorbell, bell }) => {
            let Geometry { slots, tx_bytes, rx_bytes, long_bytes } = *geometry;
            let fds = [app_memory, daemon_memory, long_memory, doorbell, bell].map(AsFd::as_fd).to_vec();
            (Attached { error: String::new(), slots, tx_bytes, rx_bytes, long_bytes }, fds)
        }
        Err(why) => {
            // An empty reason would read as consent.
            let error = if why.is_empty() { "no reason given" } else { why };
            (Attached { error: error.to_owned(), ..Attached::default() }, Vec::new())
        }
    };
    send_with_fds(stream, &framed(&attached)?, &fds)
}

fn set_patience(stream: &UnixStream, patience: Option<Duration>) -> Result<(), Error> {
    stream
        .set_read_timeout(patience)
        .and_then(|()| stream.set_write_timeout(patience))
        .map_err(|source| Error::system("setting a time limit on the socket", source))
}

fn framed(message: &impl Message) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(message.encoded_len()).ok().filter(|length| *length <= LENGTH_MAX);
    let length = length.ok_or(Error::Protocol("the descriptor sets are over 8 MiB"))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&message.encode_to_vec());
    Ok(bytes)
}

fn send(stream: &mut UnixStream, message: &impl Message) -> Result<(), Error> {
    stream.write_all(&framed(message)?).map_err(|source| Error::system("greeting the daemon", source))
}

fn send_with_fds(mut stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::Protocol("too many file descriptors for one message"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
        .map_err(|errno| Error::system("handing the rings to the application", errno))?;
    stream
        .write_all(bytes.get(sent..).unwrap_or_default())
        .map_err(|source| Error::system("handing the rings to the application", source))
}

fn receive_handover(mut stream: &UnixStream) -> Result<Handover, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let what = "waiting for the daemon's answer";
    // The descriptors come with the first byte.
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|errno| Error::system(what, errno))?
            .bytes;
    if received == 0 {
        return Err(Error::Protocol("the daemon closed the connection without a word"));
    }
    let mut fds: Vec<OwnedFd> = Vec::with_capacity(HANDOVER_FDS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    stream
        .read_exact(length.get_mut(received..).unwrap_or_default())
        .map_err(|source| Error::system(what, source))?;
    let mut bytes = vec![0; checked_length(length)? as usize];
    stream.read_exact(&mut bytes).map_err(|source| Error::system(what, source))?;
    let Attached { error, slots, tx_bytes, rx_bytes, long_bytes } = Attached::decode(bytes.as_slice())
        .map_err(|_| Error::Protocol("the daemon's answer does not decode"))?;
    if !error.is_empty() {
        return Err(Error::Refused(error));
    }
    let geometry = Geometry { slots, tx_bytes, rx_bytes, long_bytes };
    geometry.check()?;
    let [app_memory, daemon_memory, long_memory, doorbell, bell] =
        <[OwnedFd; HANDOVER_FDS]>::try_from(fds)
            .map_err(|_| Error::Protocol("the daemon's answer lacks file descriptors"))?;
    Ok(Handover { geometry, app_memory, daemon_memory, long_memory, doorbell, bell })
}

fn checked_length(bytes: [u8; 4]) -> Result<u32, Error> {
    let length = u32::from_le_bytes(bytes);
    if length > LENGTH_MAX {
        return Err(Error::Protocol("a message over 8 MiB"));
    }
    Ok(length)
}
