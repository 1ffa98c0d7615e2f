DROP TABLE tasks;
DROP TABLE circle_members;
DROP TABLE circles;
DROP TABLE agents;
