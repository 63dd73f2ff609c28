//! `headers` of a ClientTrafficPolicy.

use serde::Deserialize;

use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::plan::{ClientSettings, RequestIdPolicy};
use crate::policy::resource::Deprecated;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawHeaders {
    enable_envoy_headers: Option<bool>,
    disable_rate_limit_headers: Option<bool>,
    #[serde(rename = "preserveXRequestID")]
    preserve_request_id: Option<At<bool>>,
    #[serde(rename = "requestID")]
    request_id: Option<At<RawRequestId>>,
    early_request_headers: Option<Unsupported>,
    late_response_headers: Option<Unsupported>,
    with_underscores_action: Option<At<RawUnderscores>>,
    x_forwarded_client_cert: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RawRequestId {
    Generate,
    PreserveOrGenerate,
    Preserve,
    Disable,
}

/// What is done with headers that have underscores in their names: they are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawUnderscores {
    Allow,
    RejectRequest,
    DropHeader,
}

/// Checks `headers`.
pub(super) fn lower(
    raw: RawHeaders,
    settings: &mut ClientSettings,
    deprecated: &mut Vec<Deprecated>,
    scope: &mut Scope<'_>,
) {
    if let Some(action) = raw
        .with_underscores_action
        .filter(|action| action.value != RawUnderscores::Allow)
    {
        scope.error(
            &action.mark,
            format!("`{:?}` is not supported yet", action.value),
            "write `Allow`, which is what is done without this field",
        );
    }
    settings.envoy_headers = raw.enable_envoy_headers.unwrap_or_default();
    settings.rate_limit_headers = !raw.disable_rate_limit_headers.unwrap_or_default();
    if let Some(old) = raw.preserve_request_id {
        if raw.request_id.is_some() {
            scope.error(
                &old.mark,
                "both `preserveXRequestID` and `requestID` are given",
                "keep `requestID`",
            );
        }
        if old.value {
            settings.request_id = RequestIdPolicy::PreserveOrGenerate;
        }
        deprecated.push(Deprecated {
            mark: old.mark,
            field: "spec.headers.preserveXRequestID",
            instead: "spec.headers.requestID",
        });
    }
    if let Some(at) = raw.request_id {
        settings.request_id = match at.value {
            RawRequestId::Generate => RequestIdPolicy::Generate,
            RawRequestId::PreserveOrGenerate => RequestIdPolicy::PreserveOrGenerate,
            RawRequestId::Preserve => RequestIdPolicy::Preserve,
            RawRequestId::Disable => RequestIdPolicy::Disable,
        };
    }
}
