//! Everything that is answered instead of what was asked for.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use holm_protocol::{ApiError, ApiErrorCode, ProtocolError};

use crate::CloudError;
use crate::authority::BadRequest;
use crate::error::chain;
use crate::records::Refused;

/// An error of the API. Boxed: it is rare, and travels through every `Result`.
#[derive(Debug)]
pub(crate) struct Problem(Box<ApiError>);

impl Problem {
    pub(crate) fn new(code: ApiErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(ApiError::new(code, message)))
    }

    /// With everything that is wrong.
    pub(crate) fn bad_request(problems: Vec<String>) -> Self {
        let error = ApiError::new(ApiErrorCode::BadRequest, "the request is not right");
        Self(Box::new(error.with_problems(problems)))
    }

    /// What it says.
    pub(crate) fn error(&self) -> &ApiError {
        &self.0
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.0.code {
            ApiErrorCode::BadRequest | ApiErrorCode::CsrRefused => StatusCode::BAD_REQUEST,
            ApiErrorCode::Unauthorized | ApiErrorCode::TokenUnknown | ApiErrorCode::SignatureWrong => {
                StatusCode::UNAUTHORIZED
            }
            ApiErrorCode::Forbidden
            | ApiErrorCode::TokenUsed
            | ApiErrorCode::TokenExpired
            | ApiErrorCode::CertificateUnknown
            | ApiErrorCode::CertificateRevoked
            | ApiErrorCode::CertificateExpired => StatusCode::FORBIDDEN,
            ApiErrorCode::NotFound => StatusCode::NOT_FOUND,
            ApiErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ApiErrorCode::Conflict | ApiErrorCode::ThingTaken => StatusCode::CONFLICT,
            ApiErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ApiErrorCode::Throttled => StatusCode::TOO_MANY_REQUESTS,
            ApiErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ApiErrorCode::Internal | ApiErrorCode::Unknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(&*self.0)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<CloudError> for Problem {
    fn from(error: CloudError) -> Self {
        if error.is_retryable() {
            tracing::warn!(error = chain(&error), "a request was not served");
            return Self::new(ApiErrorCode::Unavailable, "the database is behind; try again");
        }
        // The causes are for the log: they may tell what is nobody's business.
        tracing::error!(error = chain(&error), "a request failed");
        Self::new(ApiErrorCode::Internal, "something is wrong here; the log of the control plane says what")
    }
}

impl From<ProtocolError> for Problem {
    fn from(error: ProtocolError) -> Self {
        Self::bad_request(vec![chain(&error)])
    }
}

impl From<BadRequest> for Problem {
    fn from(bad: BadRequest) -> Self {
        match bad {
            BadRequest::Request(sentence) => {
                Self::new(ApiErrorCode::CsrRefused, "the certificate request is refused").with(sentence)
            }
            BadRequest::Certificate => {
                Self::new(ApiErrorCode::CertificateUnknown, "this is not a certificate that was issued here")
            }
            BadRequest::Signature => {
                Self::new(ApiErrorCode::SignatureWrong, "the request is not signed with the certificate's key")
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        use ApiErrorCode::{
            CertificateRevoked, CertificateUnknown, Conflict, NotFound, ThingTaken, TokenExpired, TokenUnknown,
            TokenUsed,
        };
        match refused {
            Refused::TokenUnknown => Self::new(TokenUnknown, "no such enrolment token was made here"),
            Refused::TokenUsed => Self::new(TokenUsed, "the enrolment token was used before: make another one"),
            Refused::TokenExpired => Self::new(TokenExpired, "the enrolment token is too old: make another one"),
            Refused::ThingTaken => Self::new(ThingTaken, "another device has that name"),
            Refused::CertificateUnknown => {
                Self::new(CertificateUnknown, "this is not a certificate that was issued here")
            }
            Refused::CertificateRevoked => Self::new(CertificateRevoked, "the certificate is not good any more"),
            Refused::NoSuchDevice => Self::new(NotFound, "there is no such device"),
            Refused::NoSuchOperator => Self::new(NotFound, "there is no such operator"),
            Refused::NoSuchRollout => Self::new(NotFound, "there is no such rollout"),
            Refused::NotBelieved(problems) => Self::bad_request(problems),
            Refused::Conflict(sentence) => Self::new(Conflict, sentence),
        }
    }
}

impl Problem {
    fn with(self, problem: String) -> Self {
        Self(Box::new(self.0.with_problems(vec![problem])))
    }
}
