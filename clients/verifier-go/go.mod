module nocturne.example/verifier

go 1.22
