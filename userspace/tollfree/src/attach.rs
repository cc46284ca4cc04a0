//! What a client and a server have in common: attaching to the daemon, hearing from it, writing messages into the region.

use crate::Status;
use crate::outgoing::{Encode, Outgoing};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tollfree_ring::app::Port;
use tollfree_ring::{Geometry, Span, attach};

/// What an attached application listens to.
pub struct Ears {
    /// Readable when the daemon rings.
    pub doorbell: pipe::Receiver,
    /// Readable when the daemon is gone.
    pub stream: UnixStream,
}

/// Attaches and makes the descriptors fit for the event loop.
pub async fn open(path: &Path, greeting: attach::Attach) -> Result<(Port, Ears), Status> {
    let target = path.to_owned();
    let attached = tokio::task::spawn_blocking(move || attach::attach(&target, &greeting)).await;
    let unavailable = |why: &dyn std::fmt::Display| Status::unavailable(format!("{}: {why}", path.display()));
    let (stream, handover) = match attached {
        Ok(Ok(attached)) => attached,
        Ok(Err(tollfree_ring::Error::Refused(why))) => return Err(Status::failed_precondition(why)),
        Ok(Err(error)) => return Err(unavailable(&error)),
        Err(error) => return Err(unavailable(&error)),
    };
    let port = Port::open(handover).map_err(|error| unavailable(&error))?;
    let bell = port.clone_doorbell().map_err(|error| unavailable(&error))?;
    let doorbell = pipe::Receiver::from_owned_fd(bell).map_err(|error| unavailable(&error))?;
    stream.set_nonblocking(true).map_err(|error| unavailable(&error))?;
    let stream = UnixStream::from_std(stream).map_err(|error| unavailable(&error))?;
    Ok((port, Ears { doorbell, stream }))
}

/// Empties a doorbell, up to a bound: whoever rings more than that is heard again. True when nobody will ever ring it
/// again: the daemon has closed its end, and the doorbell stays readable for good.
pub fn hush(doorbell: &pipe::Receiver) -> bool {
    let mut rings = [0; 64];
    for _ in 0..64 {
        match doorbell.try_read(&mut rings) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// True when the socket says that the daemon is gone; it says nothing else.
pub async fn hear_end(stream: &UnixStream, byte: &mut [u8; 1]) -> bool {
    if stream.readable().await.is_err() {
        return true;
    }
    match stream.try_read(byte) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
        Ok(_) | Err(_) => true,
    }
}

/// Writes a message's two parts into the region. `None`: no room now.
pub fn write(port: &mut Port, outgoing: &Outgoing) -> Result<Option<(Span, Span)>, Status> {
    let Outgoing { flat_len, flat, metadata, body_len, body, .. } = outgoing;
    let Some(flat_span) = place(port, *flat_len) else { return Ok(None) };
    let Some(body_span) = place(port, *body_len) else {
        free(port, flat_span, Span::default());
        return Ok(None);
    };
    let block = flat.get(..*flat_len).unwrap_or_default();
    let mut written = *flat_len == 0 || port.write(flat_span, 0, block);
    if *body_len > 0 {
        written &= port.fill(body_span, |out| fill(out, metadata, body.as_deref())).unwrap_or_default();
    }
    if written {
        return Ok(Some((flat_span, body_span)));
    }
    free(port, flat_span, body_span);
    Err(Status::internal("the message does not encode into the length it claims"))
}

/// Writes metadata and message, which must take all of `out`.
fn fill(out: &mut [u8], metadata: &[u8], body: Option<&dyn Encode>) -> bool {
    let Some((block, message)) = out.split_at_mut_checked(metadata.len()) else { return false };
    block.copy_from_slice(metadata);
    body.map_or(message.is_empty(), |body| body.encode_into(message))
}

/// How often an application looks whether the memory of its long messages may go back to the system.
pub const LOOK: Duration = Duration::from_secs(1);

/// Bytes of stream messages that are in shared memory.
#[derive(Debug, Default)]
pub struct StreamRoom {
    short: usize,
    long: usize,
}

impl StreamRoom {
    /// Whether a stream's message may be written now. Half of the region, and of the room for long messages, is for other
    /// calls, however slowly the streams are read.
    pub fn admits(&self, port: &Port, len: usize) -> bool {
        let Geometry { tx_bytes, long_bytes, .. } = *port.geometry();
        let (taken, all) = if port.is_long(len) { (self.long, long_bytes) } else { (self.short, tx_bytes) };
        taken == 0 || taken + len <= all as usize / 2
    }

    /// A message was written.
    pub fn add(&mut self, port: &Port, len: usize) {
        *self.of(port, len) += len;
    }

    /// A message's room is free.
    pub fn remove(&mut self, port: &Port, len: usize) {
        let taken = self.of(port, len);
        *taken = taken.saturating_sub(len);
    }

    fn of(&mut self, port: &Port, len: usize) -> &mut usize {
        if port.is_long(len) { &mut self.long } else { &mut self.short }
    }
}

/// An empty part takes no room.
fn place(port: &mut Port, len: usize) -> Option<Span> {
    match len {
        0 => Some(Span::default()),
        _ => port.alloc(u32::try_from(len).ok()?),
    }
}

/// Gives the room of a message back.
pub fn free(port: &mut Port, flat: Span, body: Span) {
    for span in [flat, body] {
        if span.len > 0 {
            port.free(span);
        }
    }
}

/// What the daemon's reports call this process.
pub fn process_name() -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "an application".to_owned())
}
