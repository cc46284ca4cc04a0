//! Frames of streams that arrive from other hosts (WIRE.md §13): each is checked, and delivered in its turn.

use crate::calls::{Incoming, Origin, Outgoing};
use crate::core::Core;
use crate::driver::Driver;
use crate::exchange::BROKEN;
use crate::frames::{Frame, FrameKind};
use crate::remote::Turn;
use tollfree_ring::{DaemonOp, DeliveryHeader, Flags};
use tollfree_wire::{Code, Metadata};

/// Why a stream cannot go on.
type Broken = (Code, String);

impl<D: Driver> Core<D> {
    /// Frames of a client, all kinds of streams among them. `None`: they are none.
    pub fn take_requests(&mut self, now: u64, link: u64, mut frames: &[u8]) -> Option<()> {
        // Frames of one stream come in a row.
        let mut last = None;
        while !frames.is_empty() {
            let (frame, whole, rest) = Frame::split(frames)?;
            frames = rest;
            let stream = frame.stream;
            let found = match last {
                Some((known, handle)) if known == stream => Some(handle),
                _ => self.exchanges.served.stream(link, stream),
            };
            let Some(handle) = found else {
                // It is over, or its client does not want it before it has begun.
                if frame.kind == FrameKind::Cancel {
                    self.exchanges.served.forbid(link, stream);
                }
                continue;
            };
            last = Some((stream, handle));
            if let Err((status, why)) = self.take_request(now, handle, &frame, whole) {
                self.break_incoming(now, handle, status, &why);
                last = None;
            }
        }
        Some(())
    }

    /// A frame for a call served here, in its turn.
    fn take_request(&mut self, now: u64, handle: u64, frame: &Frame<'_>, whole: &[u8]) -> Result<(), Broken> {
        let Some(Incoming { app, remote: Some(remote), responses: Some(written), .. }) =
            self.incoming.get_mut(handle)
        else {
            return Ok(());
        };
        match frame.kind {
            FrameKind::Credit => {
                let (app, count) = (*app, written.credit(frame.count));
                self.tell_count(app, DaemonOp::ResponseCredit, handle, count);
                return Ok(());
            }
            FrameKind::Cancel => {
                self.tell_cancelled(now, handle, Code::Cancelled);
                return Ok(());
            }
            FrameKind::Message | FrameKind::ResponseHead | FrameKind::End => {}
        }
        match remote.order(frame, whole) {
            Turn::Later => return self.exchanges.keep(whole.len()),
            Turn::Never => return Err(broken()),
            Turn::Now => self.deliver_request(handle, frame)?,
        }
        while let Some(kept) = self
            .incoming
            .get_mut(handle)
            .and_then(|call| call.remote.as_mut())
            .and_then(|remote| remote.next_kept())
        {
            self.exchanges.kept -= kept.len();
            let (frame, ..) = Frame::split(&kept).ok_or_else(broken)?;
            self.deliver_request(handle, &frame)?;
        }
        Ok(())
    }

    fn deliver_request(&mut self, handle: u64, frame: &Frame<'_>) -> Result<(), Broken> {
        let Some(Incoming { app, method, remote: Some(remote), .. }) = self.incoming.get_mut(handle) else {
            return Ok(());
        };
        let (method, Some(app)) = (*method, self.apps.get_mut(app.0)) else { return Ok(()) };
        match frame.kind {
            FrameKind::Message => {
                let len = frame.flat.len() + frame.body.len();
                let known = app.methods.get(&method).ok_or_else(broken)?;
                known
                    .method
                    .request
                    .validate(frame.flat)
                    .map_err(|malformed| (Code::InvalidArgument, malformed.to_string()))?;
                if frame.metadata || !remote.arrived.add(len as u32) {
                    return Err(broken());
                }
                app.check_message(frame.body.len())?;
                let op = DaemonOp::RequestMessage;
                let header =
                    DeliveryHeader { method, layout: frame.layout, ..DeliveryHeader::new(op, handle) };
                app.deliver(&header, frame.flat, frame.body);
            }
            FrameKind::End => {
                if std::mem::replace(&mut remote.arrived.ended, true) {
                    return Err(broken());
                }
                app.deliver(&DeliveryHeader::new(DaemonOp::RequestEnd, handle), &[], &[]);
            }
            FrameKind::ResponseHead | FrameKind::Credit | FrameKind::Cancel => return Err(broken()),
        }
        Ok(())
    }

    /// Frames of a server. `None`: they are none.
    pub fn take_responses(&mut self, now: u64, link: u64, mut frames: &[u8]) -> Option<()> {
        while !frames.is_empty() {
            let (frame, whole, rest) = Frame::split(frames)?;
            frames = rest;
            let token = frame.stream;
            if let Err((status, why)) = self.take_response(now, link, token, &frame, whole) {
                self.broken.push((token, status, why));
            }
        }
        Some(())
    }

    /// A frame for a call made here, in its turn. What is for a call that is over is nobody's.
    fn take_response(
        &mut self,
        now: u64,
        link: u64,
        token: u64,
        frame: &Frame<'_>,
        whole: &[u8],
    ) -> Result<(), Broken> {
        let Some(Outgoing {
            origin: Origin::App { app, cookie, .. },
            remote: Some(remote),
            requests: Some(written),
            ..
        }) = self.outgoing.get_mut(token).filter(|call| call.is_streamed_by(link))
        else {
            return Ok(());
        };
        match frame.kind {
            FrameKind::Credit => {
                let (app, cookie, count) = (*app, *cookie, written.credit(frame.count));
                self.tell_count(app, DaemonOp::RequestCredit, cookie, count);
                return Ok(());
            }
            FrameKind::Cancel => return Err(broken()),
            FrameKind::Message | FrameKind::ResponseHead | FrameKind::End => {}
        }
        match remote.order(frame, whole) {
            Turn::Later => return self.exchanges.keep(whole.len()),
            Turn::Never => return Err(broken()),
            Turn::Now => self.deliver_response(now, token, frame)?,
        }
        while let Some(kept) = self
            .outgoing
            .get_mut(token)
            .and_then(|call| call.remote.as_mut())
            .and_then(|remote| remote.next_kept())
        {
            self.exchanges.kept -= kept.len();
            let (frame, ..) = Frame::split(&kept).ok_or_else(broken)?;
            self.deliver_response(now, token, &frame)?;
        }
        Ok(())
    }

    fn deliver_response(&mut self, now: u64, token: u64, frame: &Frame<'_>) -> Result<(), Broken> {
        let &Frame { kind, metadata, by_engine, layout, count, flat, body, .. } = frame;
        if metadata && Metadata::split(body).is_err() {
            return Err(broken());
        }
        let op = match kind {
            FrameKind::Message if !metadata => DaemonOp::ResponseMessage,
            FrameKind::ResponseHead => DaemonOp::ResponseHead,
            FrameKind::End => {
                let status = u8::try_from(count).map_err(|_| broken())?;
                let status = Code::from_wire(status);
                let at = Self::decided(by_engine, status);
                let flags = Flags { metadata, ..Flags::default() };
                self.on_response(now, token, status, at, flags, layout, flat, body);
                return Ok(());
            }
            FrameKind::Message | FrameKind::Credit | FrameKind::Cancel => return Err(broken()),
        };
        let Some(Outgoing { origin: Origin::App { app, cookie, .. }, method, remote: Some(remote), .. }) =
            self.outgoing.get_mut(token)
        else {
            return Ok(());
        };
        let Some(app) = self.apps.get_mut(app.0) else { return Ok(()) };
        if !remote.arrived.add((flat.len() + body.len()) as u32) {
            return Err(broken());
        }
        app.check_message(body.len())?;
        let (flags, method) = (Flags { metadata, ..Flags::default() }, *method);
        let header = DeliveryHeader { flags, method, layout, ..DeliveryHeader::new(op, *cookie) };
        app.deliver(&header, flat, body);
        Ok(())
    }
}

fn broken() -> Broken {
    (Code::Internal, BROKEN.to_owned())
}
