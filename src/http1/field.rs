//! What a field name means to a proxy: one branch on the length, then one compare.

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    /// Passed on as it is.
    Pass,
    /// Means something between two neighbours only.
    HopByHop,
    Connection,
    ContentLength,
    TransferEncoding,
    Host,
    Expect,
    Upgrade,
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`: who the client is, as the last hop saw it.
    Forwarded,
    Via,
    RequestId,
    AcceptEncoding,
    /// Priority, tenant and objective, by any of their names: believed from trusted peers only.
    Claim(Claim),
    ContentType,
    ContentEncoding,
    TraceParent,
    TraceState,
    Date,
}

/// What a caller claims for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Priority,
    Tenant,
    SloTtft,
    /// Reserved, and without a meaning for weir.
    Other,
}

/// Looks a name up, whatever its case.
///
/// A proxy interface in the style of CGI takes `content_length` for `content-length`: a field that only such a server
/// would understand is not passed on.
pub(super) fn kind(name: &[u8]) -> FieldKind {
    let (spelled, underscored) = spell(name);
    let known = spelled.get(..name.len()).map_or_else(|| overlong(&spelled), known);
    match known {
        FieldKind::Pass | FieldKind::Claim(_) => known,
        _ if underscored => FieldKind::HopByHop,
        _ => known,
    }
}

/// The name in lower case with a dash for each underscore, and whether it had one. Done once on a fixed array, which the
/// compiler turns into a few vector instructions; each of some thirty names is then a compare of known length.
fn spell(name: &[u8]) -> ([u8; SPELLED], bool) {
    let mut spelled = [0; SPELLED];
    let length = name.len().min(SPELLED);
    spelled[..length].copy_from_slice(&name[..length]);
    let mut underscores = 0;
    for b in &mut spelled {
        underscores |= u8::from(*b == b'_');
        *b = if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    }
    (spelled, underscores != 0)
}

/// `name` as `spell` writes it.
fn known(name: &[u8]) -> FieldKind {
    let is = |known: &[u8]| name == known;
    match name.len() {
        2 if is(b"te") => FieldKind::HopByHop,
        3 if is(b"via") => FieldKind::Via,
        4 if is(b"host") => FieldKind::Host,
        4 if is(b"date") => FieldKind::Date,
        6 if is(b"expect") => FieldKind::Expect,
        7 if is(b"upgrade") => FieldKind::Upgrade,
        7 if is(b"trailer") => FieldKind::HopByHop,
        9 if is(b"forwarded") => FieldKind::Forwarded,
        10 if is(b"connection") => FieldKind::Connection,
        10 if is(b"keep-alive") => FieldKind::HopByHop,
        10 if is(b"tracestate") => FieldKind::TraceState,
        11 if is(b"traceparent") => FieldKind::TraceParent,
        12 if is(b"x-request-id") => FieldKind::RequestId,
        12 if is(b"content-type") => FieldKind::ContentType,
        14 if is(b"content-length") => FieldKind::ContentLength,
        14 if is(b"http2-settings") => FieldKind::HopByHop,
        15 if is(b"x-forwarded-for") => FieldKind::Forwarded,
        15 if is(b"accept-encoding") => FieldKind::AcceptEncoding,
        16 if is(b"x-forwarded-host") => FieldKind::Forwarded,
        16 if is(b"proxy-connection") => FieldKind::HopByHop,
        16 if is(b"content-encoding") => FieldKind::ContentEncoding,
        17 if is(b"x-forwarded-proto") => FieldKind::Forwarded,
        17 if is(b"transfer-encoding") => FieldKind::TransferEncoding,
        18 if is(b"proxy-authenticate") => FieldKind::HopByHop,
        19 if is(b"proxy-authorization") => FieldKind::HopByHop,
        _ if name.starts_with(b"x-") => claim(name).map_or(FieldKind::Pass, FieldKind::Claim),
        _ => FieldKind::Pass,
    }
}

/// Every spelling under which priority, tenant or objective have been seen, underscores included: some servers read
/// `x_weir_priority` as the same field.
fn claim(name: &[u8]) -> Option<Claim> {
    let is = |known: &[u8]| name == known;
    match name.len() {
        13 if is(b"x-weir-tenant") => Some(Claim::Tenant),
        13 if is(b"x-slo-ttft-ms") => Some(Claim::SloTtft),
        13 if is(b"x-slo-tpot-ms") => Some(Claim::Other),
        14 if is(b"x-smg-priority") => Some(Claim::Priority),
        15 if is(b"x-weir-priority") => Some(Claim::Priority),
        18 if is(b"x-weir-slo-ttft-ms") => Some(Claim::SloTtft),
        19 if is(b"x-llm-d-slo-ttft-ms") => Some(Claim::SloTtft),
        27 if is(b"x-llm-d-inference-objective") => Some(Claim::Priority),
        29 if is(b"x-llm-d-inference-fairness-id") => Some(Claim::Tenant),
        29 if is(b"x-gateway-inference-objective") => Some(Claim::Priority),
        31 if is(b"x-gateway-inference-fairness-id") => Some(Claim::Tenant),
        _ if name.starts_with(OURS) => Some(Claim::Other),
        _ => None,
    }
}

/// A name longer than any that is known; `start` is its beginning.
fn overlong(start: &[u8; SPELLED]) -> FieldKind {
    if start.starts_with(OURS) { FieldKind::Claim(Claim::Other) } else { FieldKind::Pass }
}

/// Names reserved for weir, whatever follows.
const OURS: &[u8] = b"x-weir-";
/// One more than the longest name that is known, which makes two vector registers.
const SPELLED: usize = 32;

/// A character of a token (RFC 9110, 5.6.2).
pub(super) fn is_token_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// The value of a `Content-Length` field: 1 to 18 digits and nothing else.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// A `Connection` field that is no list of tokens, names too many fields, or one that must not be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadNomination;

/// The names that `Connection` fields nominate for removal, and whether they ask to close.
#[derive(Debug, Default)]
pub(super) struct Nominated<'a> {
    names: [&'a [u8]; NOMINATION_LIMIT],
    count: usize,
    pub close: bool,
}

impl<'a> Nominated<'a> {
    /// Reads one `Connection` field's value.
    pub fn read(&mut self, value: &'a [u8]) -> Result<(), BadNomination> {
        for name in value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
            if !name.iter().all(|b| is_token_char(*b)) {
                return Err(BadNomination);
            }
            if name.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if is_protected(name) {
                return Err(BadNomination);
            } else if !name.eq_ignore_ascii_case(b"keep-alive") {
                *self.names.get_mut(self.count).ok_or(BadNomination)? = name;
                self.count += 1;
            }
        }
        Ok(())
    }

    /// Whether `name` was nominated.
    pub fn has(&self, name: &[u8]) -> bool {
        self.names[..self.count].iter().any(|nominated| nominated.eq_ignore_ascii_case(name))
    }
}

/// Fields that a neighbour must not be able to remove: they carry identity, framing, the meaning of the body, or what weir
/// adds. A request without its key would count for another caller, or for none.
fn is_protected(name: &[u8]) -> bool {
    let carries = matches!(
        kind(name),
        FieldKind::Host
            | FieldKind::ContentLength
            | FieldKind::Forwarded
            | FieldKind::Claim(_)
            | FieldKind::Via
            | FieldKind::RequestId
            | FieldKind::TraceParent
            | FieldKind::ContentType
            | FieldKind::ContentEncoding
    );
    carries
        || [&b"authorization"[..], b"x-api-key", b"api-key", b"cookie", b"set-cookie"]
            .into_iter()
            .any(|known| name.eq_ignore_ascii_case(known))
        || name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
}

const NOMINATION_LIMIT: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_unknown_ones_pass() {
        assert_eq!(kind(b"Transfer-ENCODING"), FieldKind::TransferEncoding);
        assert_eq!(kind(b"authorization"), FieldKind::Pass);
        assert_eq!(kind(b""), FieldKind::Pass);
    }

    #[test]
    fn claims_are_known_by_every_alias_and_with_underscores() {
        for name in ["X-Weir-Priority", "x_weir_tenant", "x-weir-anything", "x-smg-priority", "X-LLM-D-SLO-TTFT-MS"] {
            assert!(matches!(kind(name.as_bytes()), FieldKind::Claim(_)), "{name}");
        }
        assert_eq!(kind(b"X_Weir-Tenant"), FieldKind::Claim(Claim::Tenant));
        assert_eq!(kind(b"x-llm-d-slo-ttft-ms"), FieldKind::Claim(Claim::SloTtft));
        for name in ["x-weird", "x-api-key", "y-weir-tenant", "x-llm-d-inference-objectives"] {
            assert_eq!(kind(name.as_bytes()), FieldKind::Pass, "{name}");
        }
    }

    #[test]
    fn a_content_length_is_digits_and_nothing_else() {
        assert_eq!(content_length(b"0042"), Some(42));
        for bad in ["", "+1", "1 ", "0x10", "5, 5", "1234567890123456789"] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn nominations_are_bounded_and_cannot_remove_identity() {
        let mut nominated = Nominated::default();
        assert_eq!(nominated.read(b"close, X-Hop ,keep-alive"), Ok(()));
        assert!(nominated.close && nominated.has(b"x-hop") && !nominated.has(b"keep-alive"));
        for bad in [
            "Host",
            "authorization",
            "traceparent",
            "x-weir-priority",
            "a b",
            "x-forwarded-for",
            "X-API-Key",
            "api-key",
            "cookie",
            "Set-Cookie",
            "content-type",
            "Content-Encoding",
        ] {
            assert_eq!(Nominated::default().read(bad.as_bytes()), Err(BadNomination), "{bad}");
        }
        let many = ["x"; 11].join(",");
        assert_eq!(Nominated::default().read(many.as_bytes()), Err(BadNomination));
    }
}
