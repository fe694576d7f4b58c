//! What a URL does not say of a place.

use std::{fmt, time::Duration};

/// How a place is reached; what is `None` is taken from the variables of the environment that the
/// [crate](crate) lists. A directory needs none of it.
#[derive(Clone)]
pub struct Options {
    /// How long a request that fails is tried again, and how long the answer to one is waited for,
    /// so a part of 8 MiB must come through in this time; 30 s unless said otherwise. A call takes
    /// several requests, and fails with the first that does.
    pub retry_time: Duration,
    /// Where the S3 server is, such as `http://127.0.0.1:9000`; none means AWS.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` if nobody says it.
    pub region: Option<String>,
    /// Who asks.
    pub access_key_id: Option<String>,
    /// The secret of `access_key_id`.
    pub secret_access_key: Option<String>,
    /// The token that belongs to a key which is valid for some time only.
    pub session_token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let (endpoint, region) = (None, None);
        let (access_key_id, secret_access_key, session_token) = (None, None, None);
        let retry_time = Duration::from_secs(30);
        Self { retry_time, endpoint, region, access_key_id, secret_access_key, session_token }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "hidden");
        f.debug_struct("Options")
            .field("retry_time", &self.retry_time)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &hidden(&self.secret_access_key))
            .field("session_token", &hidden(&self.session_token))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = || Some("fjord".to_owned());
        let options = Options { secret_access_key: secret(), session_token: secret(), ..Options::default() };
        assert!(!format!("{options:?}").contains("fjord"), "{options:?}");
        assert_eq!(format!("{options:?}").matches("hidden").count(), 2);
    }
}
