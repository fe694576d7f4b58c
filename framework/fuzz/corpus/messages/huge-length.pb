
€€€€€ text