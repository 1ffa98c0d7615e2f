DROP TABLE circuit_breakers;
DROP TABLE budget_reservations;
DROP TABLE budgets;
