"""p(data | features): what the features of a decoder, or of a head, are a law of."""
