//! Every limit of the protocol, with its reason or its source.
//!
//! Where AWS IoT Core has a limit, ours is at most as large. The tables are at
//! <https://docs.aws.amazon.com/general/latest/gr/iot-core.html> (message broker, protocols, Device Shadow) and
//! <https://docs.aws.amazon.com/general/latest/gr/iot_device_management.html> (Jobs); where an API reference page says the
//! same, that page is cited, because it is easier to find things in.

/// Bytes of one MQTT payload, in either direction. AWS IoT Core takes 128 KB
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits>); the rest is room for the topic, and for
/// brokers that count the whole packet.
pub const MAX_PAYLOAD_BYTES: usize = 100_000;

/// Bytes of UTF-8 in a topic
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits>).
pub const MAX_TOPIC_BYTES: usize = 256;

/// Slashes in a topic: 7, so 8 levels
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits>).
pub const MAX_TOPIC_SLASHES: usize = 7;

/// Topic filters of a device, all in one SUBSCRIBE: more than 8 are refused
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits>).
pub const MAX_SUBSCRIPTIONS: usize = 8;

/// Characters of a thing name. AWS allows 128 bytes; ours is also the common name of the device's certificate, which X.509
/// holds to 64 (RFC 5280, appendix A.1, `ub-common-name`).
pub const MAX_THING_NAME: usize = 64;

/// Characters of a shadow's name
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#device-shadow-limits>).
pub const MAX_SHADOW_NAME: usize = 64;

/// Characters of a job's id
/// (<https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_JobExecution.html>).
pub const MAX_JOB_ID: usize = 64;

/// Bytes of a client token
/// (<https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-document.html#client-token>). Jobs documents no limit;
/// one for both is simpler.
pub const MAX_CLIENT_TOKEN: usize = 64;

/// Characters of a job document
/// (<https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_JobExecution.html>). Ours are ASCII, so bytes.
pub const MAX_JOB_DOCUMENT: usize = 32_768;

/// Pairs in `statusDetails`
/// (<https://docs.aws.amazon.com/iot/latest/apireference/API_CancelJobExecution.html>, where the data plane's page is silent).
pub const MAX_STATUS_DETAILS: usize = 10;

/// Characters of a key of `statusDetails`
/// (<https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_JobExecutionState.html>).
pub const MAX_DETAIL_KEY: usize = 128;

/// Characters of a value of `statusDetails`
/// (<https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_JobExecutionState.html>).
pub const MAX_DETAIL_VALUE: usize = 1_024;

/// Bytes of a shadow's state document
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#device-shadow-limits>). We hold the whole request to it.
pub const MAX_SHADOW_BYTES: usize = 8_192;

/// Levels of a shadow's `desired` or `reported` section
/// (<https://docs.aws.amazon.com/general/latest/gr/iot-core.html#device-shadow-limits>).
pub const MAX_SHADOW_DEPTH: usize = 8;

/// Bytes of a signed payload before base64. With base64 (4/3), the envelope and [`MAX_SIGNATURES`] signatures it stays below
/// [`MAX_JOB_DOCUMENT`]; a test holds that.
pub const MAX_SIGNED_PAYLOAD: usize = 21_000;

/// Signatures in an envelope: one, two while a key is being replaced, and some room.
pub const MAX_SIGNATURES: usize = 4;

/// Characters of a key id: the SHA-256 of a key in hexadecimal, and some room.
pub const MAX_KEY_ID: usize = 128;

/// Bytes of one signature: an Ed25519 one has 64.
pub const MAX_SIGNATURE_BYTES: usize = 512;

/// Functions of a desired state: what a signed payload has room for with a modest configuration each.
pub const MAX_FUNCTIONS: usize = 64;

/// Configuration values, or secrets, of one function.
pub const MAX_CONFIG_VALUES: usize = 64;

/// Characters of the name of a configuration value or secret.
pub const MAX_CONFIG_NAME: usize = 64;

/// Bytes of one configuration value.
pub const MAX_CONFIG_VALUE: usize = 4_096;

/// Bytes of a secret before it is sealed: sealed and in base64 it is no longer than [`MAX_CONFIG_VALUE`].
pub const MAX_SECRET: usize = 3_000;

/// Characters of a version text.
pub const MAX_VERSION: usize = 64;

/// Bytes of a stream's name. Streams are named after functions and topics; a topic may be longer than this, and then its
/// rows cannot go up: the device must refuse them when they are made.
pub const MAX_STREAM_BYTES: usize = 512;

/// Characters of a stream's segment in a topic: enough to tell streams apart by eye and for permissions; the header of a batch
/// says the whole name.
pub const MAX_STREAM_SEGMENT: usize = 64;

/// The largest sequence number or generation: integers up to here survive every JSON parser (RFC 7493, section 2.2).
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// Bytes of a batch's header.
pub const MAX_BATCH_HEADER: usize = 4_096;

/// Bytes of text that a builder puts into a batch of several lines. Small enough that even lines that do not compress at all fit
/// into [`MAX_PAYLOAD_BYTES`] with the header, so nothing has to be compressed twice to find out.
pub const BATCH_TEXT_TARGET: usize = 90 * 1024;

/// Lines that a builder puts into a batch.
pub const BATCH_LINES_TARGET: usize = 500;

/// Bytes of text that a reader takes out of a batch: ten times a payload, which is what repetitive records reach. Also the most
/// for a batch of one long line.
pub const MAX_BATCH_TEXT: usize = 1 << 20;

/// Lines that a reader takes out of a batch: more than builders write today, so that devices may write more tomorrow.
pub const MAX_BATCH_LINES: usize = 10_000;

/// Watermarks, or refusals, in one acknowledgement.
pub const MAX_ACK_ENTRIES: usize = 64;

/// Asks in one acknowledgement.
pub const MAX_ASKS: usize = 8;

/// Dead letters that one ask names: as many as a device lists.
pub const MAX_LETTERS: usize = 100;

/// Characters of a code that this release does not know: what is kept of it.
pub const MAX_UNKNOWN_CODE: usize = 64;

/// Characters of a group's name, as for a thing.
pub const MAX_GROUP_NAME: usize = 64;

/// Groups of one device.
pub const MAX_GROUPS: usize = 16;

/// Bytes of an enrolment token: ours have 43, the rest is room for longer ones.
pub const MAX_TOKEN: usize = 128;

/// Bytes of a certificate request in PEM: one with a P-256 key has about 500.
pub const MAX_CSR_PEM: usize = 4_096;

/// Bytes of a chain of certificates in PEM: two of P-256 have about 1,600.
pub const MAX_CERTIFICATES_PEM: usize = 16_384;

/// Bytes of a word that a device says about its build.
pub const MAX_BUILD_WORD: usize = 64;

/// Bytes of an address, as a URL or a host.
pub const MAX_URL: usize = 512;

/// Problems in one error of the API; the last one says how many there are more.
pub const MAX_PROBLEMS: usize = 100;
