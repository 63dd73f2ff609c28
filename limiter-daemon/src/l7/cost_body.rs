//! A response's body that is looked at as it passes, and paid for when it is over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::clock::Clock;
use crate::engine::settle::{Ending, Settlement};

/// A body whose frames go on as they come.
#[derive(Debug)]
pub(super) struct CostBody<B: Body> {
    inner: B,
    /// `None`: there is nothing to settle, or it is settled.
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    settlement: Settlement,
    clock: Clock,
}

impl<B: Body> CostBody<B> {
    /// `settlement` has been told of the response's head.
    pub(super) fn new(inner: B, settlement: Settlement, clock: Clock) -> Self {
        let open = (!settlement.is_empty()).then(|| Box::new(Open { settlement, clock }));
        let mut body = Self { inner, open };
        body.settle_if_over();
        body
    }

    fn settle(&mut self, ending: Ending) {
        if let Some(open) = self.open.take() {
            let Open { settlement, clock } = *open;
            settlement.finished(ending, clock.both());
        }
    }

    /// A body whose end is known may not be polled again.
    fn settle_if_over(&mut self) {
        if self.open.is_some() && self.inner.is_end_stream() {
            self.settle(Ending::Complete);
        }
    }
}

impl<B> Body for CostBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let (Some(open), Some(data)) = (&mut self.open, frame.data_ref()) {
                    open.settlement.data(data);
                }
                self.settle_if_over();
            }
            Some(Err(_)) => self.settle(Ending::Broken),
            None => self.settle(Ending::Complete),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: Body> Drop for CostBody<B> {
    fn drop(&mut self) {
        self.settle(Ending::Abandoned);
    }
}

#[cfg(test)]
mod tests;
