"""Object identifiers that more than one format uses, in dotted decimals; each other one stands with its format."""

# RFC 5480, 2.1.1.1: the curves.
P256 = "1.2.840.10045.3.1.7"
P384 = "1.3.132.0.34"
# RFC 8017, A.1: any RSA key.
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
# RFC 9881, 2: a key and a signature alike.
ML_DSA_65 = "2.16.840.1.101.3.4.3.18"
ML_DSA_87 = "2.16.840.1.101.3.4.3.19"
