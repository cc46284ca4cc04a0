//! Where the bytes of messages are while the transport sends them: in applications' regions, or in batches.

use crate::apps::{AppId, copy_part};
use crate::calls::{HeldReply, Origin, Outgoing, REPLY_TOKEN};
use crate::core::Core;
use crate::driver::Driver;
use crate::frames::{self, HEAD_LEN, Head};
use crate::outbound::Refused;
use tollfree_ring::{Flags, Span};
use tollfree_wire::metadata::Malformed;
use tollfree_wire::{Code, Metadata};
use zerocopy::IntoBytes;

impl<D: Driver> Core<D> {
    /// Copies a part of a message's body to where the transport wants it: into a frame.
    pub fn copy_body(&self, token: u64, at: u32, out: &mut [u8]) {
        let source = if token & REPLY_TOKEN != 0 {
            match self.held.get(token & !REPLY_TOKEN) {
                Some(HeldReply::App { app, body, .. }) => Some((*app, *body)),
                Some(HeldReply::Batch(batch)) => {
                    copy_part(batch, at as usize, out);
                    None
                }
                None => None,
            }
        } else {
            match self.outgoing.get(token) {
                Some(call @ Outgoing { origin: Origin::App { app, body, .. }, remote: Some(remote), .. }) => {
                    return self.copy_opening(*app, *body, remote.stream, call, at, out);
                }
                Some(Outgoing { origin: Origin::App { app, body, .. }, metadata, .. }) => {
                    if let Some(app) = self.apps.get(app.0) {
                        app.port.read(*body, at as usize, out);
                    }
                    return copy_judged(metadata.as_deref(), at as usize, out);
                }
                Some(Outgoing { origin: Origin::Exchange { batch, .. }, .. }) => {
                    copy_part(self.exchanges.batch(*batch), at as usize, out);
                    None
                }
                Some(Outgoing { origin: Origin::Bind, binding: Some(key), .. }) => {
                    copy_part(self.bindings.question(key).unwrap_or_default(), at as usize, out);
                    None
                }
                _ => None,
            }
        };
        if let Some((app, body)) = source
            && let Some(app) = self.apps.get(app.0)
        {
            app.port.read(body, at as usize, out);
        }
    }

    /// The same for a call that opens a stream: a head goes before its body.
    fn copy_opening(
        &self,
        app: AppId,
        body: Span,
        stream: u64,
        Outgoing { flags, metadata, .. }: &Outgoing,
        at: u32,
        out: &mut [u8],
    ) {
        let last = if flags.last { frames::LAST } else { 0 };
        let bare = if flags.bare { frames::BARE } else { 0 };
        let head = Head { life: self.exchanges.life, stream, flags: last | bare };
        let head = head.as_bytes().get(at as usize..).unwrap_or_default();
        let (start, rest) = out.split_at_mut(head.len().min(out.len()));
        start.copy_from_slice(&head[..start.len()]);
        if let Some(app) = self.apps.get(app.0) {
            let at = (at as usize).saturating_sub(HEAD_LEN);
            app.port.read(body, at, rest);
            copy_judged(metadata.as_deref(), at, rest);
        }
    }

    /// Reads what an application says beside its message, where a policy here may read it too: once, so that what is judged
    /// is what goes out.
    pub fn read_metadata(&self, id: AppId, flags: Flags, body: Span) -> Result<Option<Box<[u8]>>, Refused> {
        let read = flags.metadata && (self.client_gate.reads_metadata() || self.server_gate.reads_metadata());
        let Some(app) = self.apps.get(id.0).filter(|_| read) else { return Ok(None) };
        let malformed = |bad: Malformed| (Code::InvalidArgument, bad.to_string());
        let mut prefix = [0; 4];
        let room = body.len as usize;
        if room < prefix.len() {
            return Err(malformed(Malformed::Truncated));
        }
        app.port.read(body, 0, &mut prefix);
        let length = Metadata::block_len(prefix).map_err(malformed)?;
        if room < length {
            return Err(malformed(Malformed::Truncated));
        }
        let mut block = vec![0; length].into_boxed_slice();
        app.port.read(body, 0, &mut block);
        // Its length was read before, and counts.
        block[..prefix.len()].copy_from_slice(&prefix);
        Metadata::split(&block).map_err(malformed)?;
        Ok(Some(block))
    }
}

/// Puts the front of a body as it was judged over what has just been read of it, from `at` on.
pub fn copy_judged(judged: Option<&[u8]>, at: usize, out: &mut [u8]) {
    if let Some(judged) = judged.and_then(|judged| judged.get(at..)) {
        let length = judged.len().min(out.len());
        out[..length].copy_from_slice(&judged[..length]);
    }
}

/// What a block says that was checked when it was read.
pub fn metadata(block: Option<&[u8]>) -> Metadata<'_> {
    let split = block.map(Metadata::split);
    split.and_then(Result::ok).map(|(metadata, _)| metadata).unwrap_or_default()
}
