//! gzip for answers, when the caller accepts it. Absent: other codings and streaming.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Whether an `Accept-Encoding` value allows gzip (RFC 9110, section 12.5.3): named, or under `*`, with a weight above 0.
pub fn accepts_gzip(accept_encoding: &str) -> bool {
    let mut any = false;
    for item in accept_encoding.split(',') {
        let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return weight(parameters) > 0.0,
            "*" => any = weight(parameters) > 0.0,
            _ => {}
        }
    }
    any
}

/// The text as one gzip member; `None` if the encoder fails, and the caller sends it as it is.
pub fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

fn weight(parameters: &str) -> f64 {
    let q = parameters.split(';').find_map(|p| p.trim().strip_prefix("q=").or_else(|| p.trim().strip_prefix("Q=")));
    q.map_or(1.0, |q| q.trim().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn gzip_is_taken_when_named_or_under_the_star() {
        for value in ["gzip", "GZIP", "deflate, gzip;q=0.5", "br;q=1.0, *;q=0.1", "gzip; q=0.001"] {
            assert!(accepts_gzip(value), "{value}");
        }
    }

    #[test]
    fn gzip_is_not_taken_when_refused_or_not_named() {
        for value in ["", "identity", "gzip;q=0", "gzip;q=0.0, *", "*;q=0", "gzipped", "gzip;q=x"] {
            assert!(!accepts_gzip(value), "{value}");
        }
    }

    #[test]
    fn what_was_packed_unpacks() {
        let text = b"weir_mode{mode=\"observe\"} 1\n".repeat(100);
        let packed = gzip(&text).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        assert!(packed.len() < text.len());
    }
}
