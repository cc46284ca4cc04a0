//! Where the bytes of messages are while the transport sends them: in applications' regions, or in batches.

use crate::apps::{AppId, copy_part};
use crate::calls::{HeldReply, Origin, Outgoing, REPLY_TOKEN};
use crate::core::Core;
use crate::driver::Driver;
use crate::frames::{self, HEAD_LEN, Head};
use tollfree_ring::Flags;
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
                Some(Outgoing {
                    origin: Origin::App { app, body, .. }, remote: Some(remote), flags, ..
                }) => {
                    return self.copy_opening(*app, *body, remote.stream, *flags, at, out);
                }
                Some(Outgoing { origin: Origin::App { app, body, .. }, .. }) => Some((*app, *body)),
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
        body: tollfree_ring::Span,
        stream: u64,
        flags: Flags,
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
            app.port.read(body, (at as usize).saturating_sub(HEAD_LEN), rest);
        }
    }
}
