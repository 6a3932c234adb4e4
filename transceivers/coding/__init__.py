"""The digital chain, source and channel coding apart: HEVC intra, 5G LDPC, QAM, adaptive schemes, pictures."""
