//! `POST /drain_listeners`: this node goes out of service and stays there, as `limiterd drain` wants
//! it.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{Admin, text};

impl Admin {
    /// Tells the control thread; what follows is seen at `/ready`.
    pub(super) fn drain_listeners(&self) -> Response<Full<Bytes>> {
        self.drain.notify_one();
        let said = "draining: not ready any more, clients are asked to go, and who comes all the \
                    same is served; SIGTERM ends it\n";
        text(StatusCode::OK, said.to_owned())
    }
}
