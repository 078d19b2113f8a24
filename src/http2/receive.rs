//! What the frames of the other side do to a connection and its streams.

use http::StatusCode;

use super::{
    floods::{Flood, Floods},
    frame::{self, Frame},
    head::{Head, SEVERAL_LENGTHS},
    hpack::Decoder,
    reason::Reason,
    state::{Failure, MAX_WINDOW, Role, State},
};
use crate::types::{fields::Fields, framing::HeadLimits};

/// A well-behaved server sends one `100 Continue` or a few `103 Early Hints`.
const MAX_INTERIM: u8 = 8;

/// The size of a table of header lines that nobody has changed, in bytes (RFC 9113, section 6.5.2).
const TABLE_SIZE: u32 = 4_096;

/// Settings (RFC 9113, section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// Takes frames.
pub(super) struct Receiver<'a> {
    pub(super) state: &'a mut State,
    pub(super) decoder: &'a mut Decoder,
    pub(super) floods: &'a mut Floods,
    /// The limits of header lists that are taken.
    pub(super) header_limits: HeadLimits,
    /// How many streams a client may have open.
    pub(super) streams: usize,
    /// Whether the other side was told that no streams are taken any more.
    pub(super) refuses: bool,
    pub(super) now: u64,
    /// The requests that have come.
    pub(super) accepted: &'a mut dyn FnMut(Head, usize, u32),
}

impl Receiver<'_> {
    /// Takes a frame.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(super) fn take(&mut self, frame: Frame<'_>) -> Result<(), Reason> {
        match frame {
            Frame::Data { stream, data, flow, is_last, ends, is_idle } => {
                // A server may say at any rate that there is nothing yet.
                if is_idle && self.state.role == Role::Server {
                    self.counts(Flood::Empty);
                }
                self.state.hears();
                self.data(stream, data, flow, is_last, ends)?;
            }
            Frame::Headers { stream, block, ends } => {
                self.state.hears();
                self.headers(stream, block, ends)?;
            }
            Frame::Part { counts } => {
                if counts {
                    self.counts(Flood::Continuations);
                }
            }
            Frame::Reset { stream, reason } => match self.find(stream)? {
                Some(key) => {
                    self.counts(Flood::Resets);
                    let is_refused = reason == Reason::REFUSED_STREAM;
                    let failure = if is_refused { Failure::Refused } else { Failure::Reset(reason) };
                    self.state.fails(key, failure);
                }
                None => {
                    self.state.finishes(stream);
                    self.counts_late_word();
                }
            },
            Frame::Settings { values } => {
                self.counts(Flood::Settings);
                self.settings(values)?;
            }
            Frame::Ping { data } => {
                match self.state.pings_granted.checked_sub(1) {
                    Some(left) => self.state.pings_granted = left,
                    None => self.counts(Flood::Pings),
                }
                self.state.out.reply(frame::PING, frame::ACK, 0, &data);
            }
            Frame::SettingsAck => self.counts(Flood::Settings),
            Frame::Pong { .. } => self.counts(Flood::Pings),
            Frame::GoAway { last } => self.goes_away(last),
            Frame::WindowUpdate { stream, by } => self.widens(stream, by)?,
            Frame::Other => self.counts(Flood::Others),
        }
        let is_stuffed = self.state.out.is_stuffed();
        if is_stuffed {
            self.floods.finds(Flood::Others);
        }
        if is_stuffed || self.floods.found().is_some() { Err(Reason::ENHANCE_YOUR_CALM) } else { Ok(()) }
    }

    fn counts(&mut self, kind: Flood) {
        self.floods.count(kind, self.now);
    }

    /// Finds a stream; none if it is over.
    fn find(&mut self, stream: u32) -> Result<Option<usize>, Reason> {
        let is_of_client = stream % 2 == 1;
        match self.state.ids.get(&stream) {
            Some(key) => Ok(Some(*key)),
            // The other side may not know yet that it is over.
            None if is_of_client && stream <= self.state.last => Ok(None),
            // It was never opened (RFC 9113, section 5.1).
            None => Err(Reason::PROTOCOL_ERROR),
        }
    }

    /// Counts a frame on a stream that is over. A server sends on until it has seen that nobody waits any more.
    fn counts_late(&mut self) {
        if self.state.role == Role::Server {
            self.counts(Flood::Others);
        }
    }

    /// Counts what a client says of a message that this side has sent already, unless it is part by part.
    fn counts_late_word(&mut self) {
        match self.state.words_granted.checked_sub(1) {
            Some(left) => self.state.words_granted = left,
            None => self.counts_late(),
        }
    }

    /// Counts room that the other side gives, unless it got something for which it may.
    fn counts_update(&mut self) {
        match self.state.updates_granted.checked_sub(1) {
            Some(left) => self.state.updates_granted = left,
            None => self.counts_late(),
        }
    }

    /// Resets a stream because of what the other side did, which is told to its task, too.
    fn provoked(&mut self, key: usize, reason: Reason, fault: &'static str) {
        self.counts(Flood::Resets);
        self.state.resets(key, reason);
        self.state.fails(key, Failure::Malformed(fault));
    }

    /// Resets a stream that nobody uses.
    fn refuse(&mut self, stream: u32, reason: Reason) {
        self.state.send_number(frame::RST_STREAM, stream, reason.0);
    }

    fn headers(&mut self, stream: u32, block: &[u8], ends: bool) -> Result<(), Reason> {
        let mut head = Head::new();
        let limits = self.header_limits;
        self.decoder.decode(block, |line| head.add(line, limits)).map_err(|_| Reason::COMPRESSION_ERROR)?;
        if head.is_over && self.state.role == Role::Server {
            self.counts(Flood::HeaderLists);
        }
        let is_new = self.state.role == Role::Server && stream % 2 == 1 && stream > self.state.last;
        if is_new {
            return self.opens(stream, head, ends);
        }
        let Some(key) = self.find(stream)? else {
            self.state.finishes(stream);
            self.counts_late();
            return Ok(());
        };
        let Some(slot) = self.state.slots.get(key) else { return Ok(()) };
        if slot.failure.is_some() || slot.is_reset {
            self.counts_late();
        } else if slot.has_received_end {
            self.provoked(key, Reason::STREAM_CLOSED, "a head behind the end");
        } else if self.state.role == Role::Client && !slot.has_head {
            self.response(key, head, ends);
        } else {
            self.trailers(key, head, ends);
        }
        Ok(())
    }

    fn opens(&mut self, stream: u32, head: Head, ends: bool) -> Result<(), Reason> {
        self.state.last = stream;
        // One that was reset counts until its task has noticed.
        if self.refuses || self.state.live >= self.streams || self.state.slots.len() >= 2 * self.streams {
            self.counts(Flood::Others);
            self.refuse(stream, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let length = match head.length() {
            // That is for those to refuse who can tell the client why.
            Err(SEVERAL_LENGTHS) => Ok(None),
            length => length,
        };
        let is_cut = ends && matches!(length, Ok(Some(1..)));
        if head.fault_of_request().is_some() || length.is_err() || is_cut {
            self.counts(Flood::Resets);
            self.refuse(stream, Reason::PROTOCOL_ERROR);
            return Ok(());
        }
        let key = self.state.insert(stream);
        if let Some(slot) = self.state.slots.get_mut(key) {
            slot.has_received_end = ends;
            slot.expected = length.ok().flatten();
        }
        (self.accepted)(head, key, stream);
        Ok(())
    }

    fn response(&mut self, key: usize, mut head: Head, ends: bool) {
        let Some(slot) = self.state.slots.get_mut(key) else { return };
        let length = head.length();
        let is_bodiless = slot.is_bodiless;
        let fault = head.fault_of_response().or(length.err());
        let status = head.status().unwrap_or_default();
        let fault = fault.or(match status.as_u16() {
            101 => Some("a switch of protocols"),
            100..200 if ends => Some("an interim response that ends the stream"),
            100..200 if slot.interim == MAX_INTERIM => Some("too many interim responses"),
            200.. if ends && !is_bodiless && !has_none(status) && matches!(length, Ok(Some(1..))) => {
                Some("no body, although a length was told")
            }
            _ => None,
        });
        if let Some(fault) = fault {
            return self.provoked(key, Reason::PROTOCOL_ERROR, fault);
        }
        let fields = std::mem::take(&mut head.fields);
        if status.is_informational() {
            slot.interim += 1;
            if status != StatusCode::EARLY_HINTS {
                return;
            }
        } else {
            slot.has_head = true;
            slot.is_bodiless |= has_none(status);
            slot.expected = length.ok().flatten().filter(|_| !slot.is_bodiless);
            slot.has_received_end = ends;
        }
        slot.heads.push((status, fields));
        self.state.uncount_if_over(key);
        self.state.wake(key);
    }

    fn trailers(&mut self, key: usize, mut head: Head, ends: bool) {
        let fault = head.fault_of_trailers().or((!ends).then_some("a second head"));
        if let Some(fault) = fault {
            return self.provoked(key, Reason::PROTOCOL_ERROR, fault);
        }
        if let Some(slot) = self.state.slots.get_mut(key) {
            let trailers: Fields = std::mem::take(&mut head.fields);
            slot.trailers = Some(trailers);
        }
        self.body_ends(key);
    }

    /// Notes the end of a body, which must be as long as was told.
    fn body_ends(&mut self, key: usize) {
        let Some(slot) = self.state.slots.get_mut(key) else { return };
        if slot.expected.is_some_and(|left| left > 0) {
            return self.provoked(key, Reason::PROTOCOL_ERROR, "a body shorter than its length");
        }
        slot.has_received_end = true;
        self.state.uncount_if_over(key);
        self.state.wake(key);
    }

    fn data(&mut self, stream: u32, data: &[u8], flow: u32, is_last: bool, ends: bool) -> Result<(), Reason> {
        let is_client = self.state.role == Role::Client;
        self.state.receive_window -= i64::from(flow);
        if self.state.receive_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        let length = data.len() as u32;
        let found = self.find(stream)?;
        let is_granted = found.is_none() && flow > 0 && self.state.takes_late(flow);
        if found.is_none() && !is_granted && is_last {
            self.counts_late();
        }
        if found.is_none() && ends {
            self.state.finishes(stream);
        }
        let key = found.filter(|key| {
            let slot = self.state.slots.get(*key);
            slot.is_some_and(|slot| slot.failure.is_none() && !slot.is_reset)
        });
        // A server's data is bounded by the windows of its streams, so that one that waits holds up no other.
        self.state.credits(if is_client || key.is_none() { flow } else { flow - length });
        let Some(key) = key else { return Ok(()) };
        let Some(slot) = self.state.slots.get_mut(key) else { return Ok(()) };
        let fault = if slot.has_received_end {
            Some((Reason::STREAM_CLOSED, "a body behind its end"))
        } else if is_client && !slot.has_head {
            Some((Reason::PROTOCOL_ERROR, "a body before its head"))
        } else if slot.is_bodiless && length > 0 {
            Some((Reason::PROTOCOL_ERROR, "a body where there is none"))
        } else if i64::from(flow) > slot.receive_window {
            Some((Reason::FLOW_CONTROL_ERROR, "more than there was room for"))
        } else if slot.expected.is_some_and(|left| left < u64::from(length)) {
            Some((Reason::PROTOCOL_ERROR, "a body longer than its length"))
        } else {
            None
        };
        if let Some((reason, fault)) = fault {
            self.provoked(key, reason, fault);
            if !is_client {
                self.state.credits(length);
            }
            return Ok(());
        }
        slot.receive_window -= i64::from(flow);
        slot.expected = slot.expected.map(|left| left - u64::from(length));
        slot.data.extend_from_slice(data);
        if flow > length {
            self.state.releases(key, flow - length);
        }
        if ends {
            self.body_ends(key);
        } else if length > 0 {
            self.state.wake(key);
        }
        Ok(())
    }

    fn settings(&mut self, values: &[u8]) -> Result<(), Reason> {
        let mut window = self.state.peer_window;
        if !std::mem::replace(&mut self.state.is_settled, true) {
            // There is no limit but one that is told (RFC 9113, section 6.5.2).
            self.state.max_streams = usize::MAX;
        }
        for value in values.chunks_exact(6) {
            let [a, b, c, d, e, f] = value else { continue };
            let (name, value) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]));
            match name {
                // A server pushes nothing to whoever takes nothing.
                ENABLE_PUSH if value > u32::from(self.state.role == Role::Server) => {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                // A change must be followed (RFC 7541, section 4.2), though nothing is kept there.
                HEADER_TABLE_SIZE if value < TABLE_SIZE => self.state.must_resize = !self.state.has_resized,
                MAX_CONCURRENT_STREAMS => self.state.max_streams = value as usize,
                INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                INITIAL_WINDOW_SIZE => window = value.into(),
                MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => return Err(Reason::PROTOCOL_ERROR),
                _ => {}
            }
        }
        // Once a frame, however often it is set there.
        let by = window - std::mem::replace(&mut self.state.peer_window, window);
        let mut opened = Vec::new();
        if by != 0 {
            for (key, slot) in &mut self.state.slots {
                let before = slot.send_window;
                slot.send_window += by;
                if slot.send_window > MAX_WINDOW {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                if before <= 0 && slot.send_window > 0 {
                    opened.push(key);
                }
            }
        }
        opened.into_iter().for_each(|key| self.state.wake(key));
        self.state.out.reply(frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(())
    }

    fn goes_away(&mut self, last: u32) {
        if self.state.role == Role::Server {
            return;
        }
        self.state.is_going = true;
        // Whatever the reason, those behind the last one were not processed (RFC 9113, section 6.8).
        let behind: Vec<_> =
            self.state.slots.iter().filter(|(_, slot)| slot.id > last).map(|(key, _)| key).collect();
        for key in behind {
            self.state.fails(key, Failure::Refused);
        }
    }

    fn widens(&mut self, stream: u32, by: u32) -> Result<(), Reason> {
        if stream == 0 {
            self.counts_update();
            self.state.send_window += i64::from(by);
            if by == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            if self.state.send_window > MAX_WINDOW {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            self.state.wake_blocked();
            return Ok(());
        }
        let Some(key) = self.find(stream)? else {
            self.counts_late_word();
            return Ok(());
        };
        self.counts_update();
        let Some(slot) = self.state.slots.get_mut(key) else { return Ok(()) };
        slot.send_window += i64::from(by);
        if by == 0 {
            self.provoked(key, Reason::PROTOCOL_ERROR, "a window that does not grow");
        } else if slot.send_window > MAX_WINDOW {
            self.provoked(key, Reason::FLOW_CONTROL_ERROR, "a window that grows too much");
        } else {
            self.state.wake(key);
        }
        Ok(())
    }
}

/// Returns whether a response has no body by its status (RFC 9110, section 6.4.1).
fn has_none(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
